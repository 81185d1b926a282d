"""A file is replaced as a whole, and what is said of it is so."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from meshd.base import disk
from meshd.base.disk import Disk
from meshd.base.errors import SystemRefusedError


def _fails(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_file_that_is_in_place_is_not_called_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start would put it in force."""
    path = tmp_path / "applied.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(disk, "sync_directory", _fails)
    disk.replace(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="Input/output error"):
        disk.write_whole(Disk(), path, b"newer")


def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "applied.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(Disk, "sync", _fails)
    with pytest.raises(SystemRefusedError, match="cannot be written"):
        disk.replace(path, b"new")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]
