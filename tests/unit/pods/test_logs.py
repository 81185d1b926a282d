"""A container's log, as it is and as it grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.pods.logs import read_log


def test_a_log_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\n")
    assert b"".join(read_log(log, follow=False)) == b"one\ntwo\n"


def test_a_log_is_followed_also_when_it_is_cut_and_ends_with_its_pod(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one, which is longer\n")
    parts = read_log(log, follow=True)
    assert next(parts) == b"one, which is longer\n"
    with log.open("ab") as more:
        more.write(b"two\n")
    assert next(parts) == b"two\n"
    log.write_text("three\n")
    assert next(parts) == b"three\n"
    log.unlink()
    assert list(parts) == []


def test_a_log_that_is_gone_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError, match="is gone: its pod has ended"):
        list(read_log(tmp_path / "none", follow=False))
