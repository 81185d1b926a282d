"""Whoever could replace what root runs is named."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from meshd.workloads.host.preparation import changeable


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Uid and mode by path; root's and 0755 where none are given."""
    known: dict[str, tuple[int, int]] = {}

    def look(path: Path, **_: Any) -> os.stat_result:
        uid, mode = known.get(str(path), (0, 0o755))
        return os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))

    monkeypatch.setattr(Path, "stat", look)
    return known


def test_a_program_that_only_root_can_change_is_nothing_to_warn_of(
    owners: dict[str, tuple[int, int]],
) -> None:
    owners["/tmp"] = (0, 0o1777)
    assert list(changeable(Path("/opt/meshd/bin/meshctl"))) == []
    assert list(changeable(Path("/tmp/meshctl"))) == []


@pytest.mark.parametrize("path", ["/home/eve/venv/bin/meshctl", "/home/eve/venv", "/home/eve"])
def test_the_owner_of_any_part_of_the_way_is_named(
    owners: dict[str, tuple[int, int]], path: str
) -> None:
    owners[path] = (54321, 0o755)
    assert list(changeable(Path("/home/eve/venv/bin/meshctl"))) == [(Path(path), "54321")]


def test_a_directory_that_everybody_may_write_to_is_named(
    owners: dict[str, tuple[int, int]],
) -> None:
    owners["/srv/all"] = (0, 0o777)
    assert list(changeable(Path("/srv/all/meshctl"))) == [(Path("/srv/all"), "nobody")]
