"""The cluster of all tests in here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.kube.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster, shared by all modules: leave it as you found it."""
    made = Cluster()
    with contextlib.closing(made):
        try:
            made.start()
            made.start_mesh()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{made.logs()}") from None
        yield made
