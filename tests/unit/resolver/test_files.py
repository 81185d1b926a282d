"""The resolver's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.resolver import files
from meshd.resolver.tables import Tables


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    assert files.write(tmp_path, Tables("a\n", "b\n", ""))
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert before.keys() == {files.HOSTS, files.SERVERS}
    assert not files.write(tmp_path, Tables("a\n", "b\n", ""))
    assert files.write(tmp_path, Tables("a\n", "c\n", ""))
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {files.SERVERS}


def test_a_file_with_nothing_in_it_is_written_where_there_was_something(tmp_path: Path) -> None:
    assert not files.write(tmp_path, Tables("", "", ""))
    assert files.write(tmp_path, Tables("", "", "a\n"))
    assert files.write(tmp_path, Tables("", "", ""))
    assert (tmp_path / files.WILDCARDS).read_text() == ""


def test_everybody_may_read_it(tmp_path: Path) -> None:
    files.write(tmp_path, Tables("a\n", "", ""))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError, match=r"gone/hosts.*No such file"):
        files.write(tmp_path / "gone", Tables("a\n", "", ""))
