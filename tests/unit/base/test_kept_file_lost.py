"""A kept file that was unusable is lost until it is written again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from meshd.base import kept_file


def test_a_file_that_was_moved_aside_is_lost_until_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert kept_file.lost(path) == ()
    path.write_bytes(b"\xff")
    assert kept_file.load(path, msgspec.json.decode, "nothing is known") is None
    assert kept_file.lost(path) == (f"{path}.damaged-1",)
    path.write_bytes(b"{}")
    assert kept_file.lost(path) == ()
