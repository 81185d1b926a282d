"""Fixtures for the tests of the node."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.settings import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Return the paths of a node, with the directories that its mesh role writes to."""
    made = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    places = made.config_directory, made.lib, made.resolver_run, made.workloads.parent
    for directory in places:
        directory.mkdir(parents=True)
    return made
