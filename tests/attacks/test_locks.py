"""Locks and names that any user of the machine could hold, or take before meshd does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.capture.rules import inside, locks, xtables_lock
from meshd.settings import Paths
from meshd.supervisor.home import Home, only_one

_HOLD = """
import fcntl, os, socket, sys, time
held = []
for path in sys.argv[1:]:
    try:
        one = open(path, "rb") if path[0] == "/" else socket.socket(socket.AF_UNIX)
        fcntl.flock(one, fcntl.LOCK_EX) if path[0] == "/" else one.bind("\\0" + path[1:])
        held.append(one)
    except OSError as error:
        print(path, error.strerror, flush=True)
print("done", flush=True)
time.sleep(600)
"""
_TAKE = """
import pathlib, sys
from meshd.capture.rules import locks
directory = pathlib.Path(sys.argv[1])
with locks.locked(locks.RULES, directory):
    pass
assert locks.Claim(locks.KEEPER, directory).take()
"""


@contextlib.contextmanager
def stranger(*paths: str) -> Generator[str]:
    """Holds what it can; gives what it could not."""
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    command = (*user, "/usr/bin/python3", "-c", _HOLD, *paths)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        said = ""
        while (line := holder.stdout.readline()) not in {"done\n", ""}:
            said += line
        try:
            yield said
        finally:
            holder.kill()


def test_nobody_holds_up_who_writes_the_rules_of_the_host(tmp_path: Path) -> None:
    directory = tmp_path / "locks"
    with locks.locked(locks.RULES, directory):
        (file,) = directory.iterdir()
        names = ("/proc/self/ns/net", str(file), "@meshd-host-capture")
    with stranger(*names) as said:
        assert str(file) in said
        subprocess.run([sys.executable, "-c", _TAKE, str(directory)], check=True, timeout=60)


@pytest.mark.parametrize("name", [locks.RULES, locks.KEEPER])
def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path, name: str) -> None:
    first, second = (locks.Claim(name, tmp_path / "locks") for _ in range(2))
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert not first.take()
    second.release()
    assert not (tmp_path / "locks").exists()


_COUNT = """
import pathlib, sys
from meshd.capture.rules import locks
directory, count = map(pathlib.Path, sys.argv[1:])
for _ in range(50):
    with locks.locked(locks.RULES, directory):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_a_lock_that_is_made_and_removed_all_the_time_excludes_others_too(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", _COUNT, str(tmp_path / "locks"), str(count)]
    counting = [subprocess.Popen(command) for _ in range(4)]
    assert [one.wait(60) for one in counting] == [0] * 4
    assert count.read_text() == "200"


def test_each_network_namespace_has_locks_of_its_own(tmp_path: Path) -> None:
    name = f"meshd-locks-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        here = locks.Claim(locks.KEEPER, tmp_path / "locks")
        with inside.entered(Path("/run/netns") / name):
            there = locks.Claim(locks.KEEPER, tmp_path / "locks")
        assert here.take()
        assert there.take()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_a_directory_that_is_somebody_elses_is_not_used(tmp_path: Path) -> None:
    directory = tmp_path / "locks"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    with pytest.raises(SystemRefusedError, match="must be root's"):
        locks.Claim(locks.KEEPER, directory).take()


def test_nobody_keeps_the_supervisor_from_starting(tmp_path: Path) -> None:
    home = Home(Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run"))
    home.directory.mkdir(parents=True)
    home.lock.touch(mode=0o644)  # as a version before has left it
    for _ in range(2):
        with only_one(home):
            assert home.lock.stat().st_mode & 0o777 == 0o600
            with pytest.raises(MeshdError, match="already running"), only_one(home):
                pass


def test_nobody_opens_the_lock_of_iptables_that_we_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xtables_lock, "LOCK", tmp_path / "xtables.lock")
    with xtables_lock.held():
        assert xtables_lock.LOCK.stat().st_mode & 0o777 == 0o600
        with xtables_lock.LOCK.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
