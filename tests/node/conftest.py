"""Whole nodes under MESHD_HOMEs of their own, with pods; nothing of them is left afterwards.

Tests take the types of fixtures from ``tests.node.node`` when they are checked, not when they run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.node.manifests import POPULATION, Write
from tests.node.network import host_rules
from tests.node.node import Node, make_node


@pytest.fixture(scope="session", autouse=True)
def clean_host() -> Iterator[None]:
    before = host_rules()
    yield
    assert host_rules() == before


@pytest.fixture(scope="module")
def make(clean_host: None) -> Iterator[Callable[..., Node]]:
    """Makes nodes, and ends them with the module if nobody did before."""
    with contextlib.ExitStack() as stack:

        def making(**settings: dict[str, Any]) -> Node:
            made = make_node(**settings)
            stack.callback(lambda: made.home.exists() and made.close())
            return made

        yield making


@pytest.fixture(scope="session")
def node(clean_host: None) -> Iterator[Node]:
    """A node with ``POPULATION``, shared by all modules: leave it as you found it."""
    made = make_node()
    with contextlib.closing(made):
        made.start()
        made.up(Write.dump(*POPULATION))
        yield made
