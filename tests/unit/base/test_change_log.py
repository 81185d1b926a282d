"""A file of changes holds all that was said to be stored, whatever stops the process."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.base import change_log
from meshd.base.change_log import ChangeLog
from meshd.base.disk import Disk
from meshd.base.errors import InvalidInputError, SystemRefusedError

State = dict[str, int]


class KilledError(BaseException):
    """Stands for the end of the process: nothing after it runs that would write."""


class Failing(Disk):
    """A disk on which a step fails: ``fails`` is asked before each."""

    def __init__(self, fails: Callable[[str], BaseException | None], part: float = 0.5) -> None:
        self._fails = fails
        self._part = part

    def _step(self, name: str) -> None:
        if error := self._fails(name):
            raise error

    def create(self, path: Path, mode: int) -> int:
        self._step("create")
        return super().create(path, mode)

    def write(self, descriptor: int, data: bytes) -> None:
        try:
            self._step("write")
        except BaseException:
            super().write(descriptor, data[: int(len(data) * self._part)])
            raise
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._step("sync")

    def truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate")
        super().truncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)


def full(*steps: str) -> Callable[[str], BaseException | None]:
    return lambda step: OSError(errno.ENOSPC, "No space left on device") if step in steps else None


class Kept:
    """A state that is kept in a file, as its users keep theirs."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.log = ChangeLog(path, on=disk)
        self.state = read(path)

    def set(self, name: str, value: int) -> None:
        after = {**self.state, name: value}
        change = json.dumps({name: value}).encode()
        self.log.append(change, lambda: json.dumps(after).encode())
        self.state = after


def read(path: Path) -> State:
    try:
        found = change_log.parse(path.read_bytes())
    except FileNotFoundError:
        return {}
    state: State = json.loads(found.whole)
    for change in found.changes:
        state |= json.loads(change)
    return state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept.json"


def test_a_change_is_appended_to_the_whole(path: Path) -> None:
    kept = Kept(path)
    kept.set("a", 1)
    inode = path.stat().st_ino
    for value in range(20):
        kept.set("b", value)
    assert path.stat().st_ino == inode
    assert len(change_log.parse(path.read_bytes()).changes) == 20
    assert read(path) == {"a": 1, "b": 19}


def test_a_new_process_begins_with_a_whole(path: Path) -> None:
    Kept(path).set("a", 1)
    Kept(path).set("b", 2)
    assert path.read_bytes() == b'{"a": 1, "b": 2}\n'


def test_the_file_stays_in_proportion_to_the_state(path: Path) -> None:
    kept = Kept(path)
    longest = 0
    for value in range(10_000):
        kept.set("a", value)
        longest = max(longest, path.stat().st_size)
    assert 10_000 < longest < 100_000
    assert read(path) == {"a": 9999}


def test_a_file_of_a_former_version_has_no_changes(path: Path) -> None:
    for data in (b'{"a": 1}', b'{\n  "a": 1\n}\n'):
        path.write_bytes(data)
        assert read(path) == {"a": 1}


def test_the_whole_is_in_the_file_after_settling(path: Path) -> None:
    kept = Kept(path)
    kept.log.settle(lambda: b"{}")
    assert not path.exists()
    kept.set("a", 1)
    kept.set("a", 2)
    again = Kept(path)
    again.log.settle(lambda: json.dumps(again.state).encode())
    assert path.read_bytes() == b'{"a": 2}\n'
    inode = path.stat().st_ino
    again.log.settle(lambda: b"{}")
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("killed_at", range(12))
def test_a_process_that_is_killed_leaves_the_old_or_the_new_state(
    path: Path, killed_at: int, part: float
) -> None:
    left = killed_at

    def kills(_: str) -> BaseException | None:
        nonlocal left
        left -= 1
        return KilledError() if left < 0 else None

    kept, told = Kept(path, Failing(kills, part)), [dict[str, int]()]
    try:
        for number in range(4):
            kept.set("a", number)
            told.append(kept.state)
    except KilledError:
        assert read(path) in (told[-1], {"a": len(told) - 1})
    else:
        assert killed_at > 9
    before = read(path)
    Kept(path).set("b", 1)
    assert read(path) == {**before, "b": 1}


@pytest.mark.parametrize("steps", [("write",), ("sync",), ("write", "truncate"), ("create",)])
def test_a_full_disk_leaves_the_old_state_and_is_used_again_once_it_has_room(
    path: Path, steps: tuple[str, ...]
) -> None:
    refusing: list[str] = []

    def fails(step: str) -> BaseException | None:
        return full(*refusing)(step)

    kept = Kept(path, Failing(fails))
    kept.set("a", 1)
    kept.set("a", 2)
    refusing += steps
    if "create" not in steps:  # which appending does not need
        with pytest.raises(SystemRefusedError, match="cannot be written: No space"):
            kept.set("a", 3)
    else:
        kept.set("a", 2)
    assert read(path) == kept.state == {"a": 2}
    if "truncate" not in steps:
        assert path.read_bytes().endswith(b"\n")
    refusing.clear()
    kept.set("b", 1)
    assert read(path) == {"a": 2, "b": 1}


def test_a_file_that_somebody_has_changed_is_replaced(path: Path) -> None:
    kept = Kept(path)
    kept.set("a", 1)
    path.write_bytes(path.read_bytes() + b"somebody's")
    kept.set("b", 2)
    assert path.read_bytes() == b'{"a": 1, "b": 2}\n'
    path.unlink()
    kept.set("c", 3)
    assert read(path) == {"a": 1, "b": 2, "c": 3}


def test_changes_of_which_a_part_is_missing_are_damaged_unless_they_are_the_last(
    path: Path,
) -> None:
    kept = Kept(path)
    for name in "abc":
        kept.set(name, 1)
    whole, second, third = path.read_bytes().splitlines(keepends=True)
    for data in (second[:-3] + third, second.replace(b"1}", b"2}") + third, b"+\n", b"\n", b"x\n"):
        with pytest.raises(InvalidInputError, match="checksum"):
            change_log.parse(whole + second + data)
    for cut in range(len(third)):
        assert change_log.parse(whole + second + third[:cut]).is_cut == bool(cut)
        assert len(change_log.parse(whole + second + third[:cut]).changes) == 1


@settings(max_examples=200)
@given(zeros=st.integers(1, 5000), cut=st.integers(0, 18))
def test_zeros_that_a_power_cut_leaves_are_no_change(zeros: int, cut: int) -> None:
    line = change_log.line_of(b'{"a": 2}')
    for before in (b"{}\n", b"{}\n" + line):
        for tail in (b"\0" * zeros, b"\0" * zeros + line[cut:], line[:cut] + b"\0" * zeros):
            found = change_log.parse(before + tail)
            assert found.is_cut
            assert len(found.changes) == before.count(b"+")


@settings(max_examples=200)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(whole: bytes, rest: bytes) -> None:
    for data in (whole, b"{}\n+" + rest, b"{}\n\0" + rest, b"\n" + rest):
        try:
            found = change_log.parse(data)
        except InvalidInputError:
            continue
        assert data.startswith(found.whole)
