"""A probe that is a program has the rights and the place of its workload, and never ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from meshd.errors import InvalidInputError, NotReadyError
from meshd.supervisor.probing import Probing

OURS = pwd.getpwnam("meshd").pw_uid
STRANGER = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"meshd-probing-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@contextlib.contextmanager
def workload(namespace: str, uid: int) -> Generator[str]:
    """A process in the namespace; gives the namespace's path."""
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    sleeper = subprocess.Popen(["ip", "netns", "exec", namespace, *user, "sleep", "600"])
    try:
        deadline = time.monotonic() + 20
        while Path(f"/proc/{sleeper.pid}/comm").read_text(encoding="ascii") != "sleep\n":
            assert time.monotonic() < deadline
        yield f"/run/netns/{namespace}"
    finally:
        sleeper.kill()
        sleeper.wait()


def passes(netns: str, *command: str, seconds: float = 20) -> bool:
    return asyncio.run(Probing({0, OURS}).passes(command, seconds, "", netns))


def says(netns: str, script: str) -> bool:
    return passes(netns, "sh", "-ec", script)


def test_it_runs_as_the_user_and_in_the_namespace_of_the_workload(namespace: str) -> None:
    with workload(namespace, STRANGER) as netns:
        inode = Path(netns).stat().st_ino
        assert says(netns, f"test $(id -u) = {STRANGER}")
        assert says(netns, f"test $(stat -Lc %i /proc/self/ns/net) = {inode}")
        assert not says(netns, "exit 3")


@pytest.mark.parametrize("uid", [0, OURS])
def test_it_runs_neither_as_root_nor_as_one_of_our_users(namespace: str, uid: int) -> None:
    with workload(namespace, uid) as netns:
        assert says(netns, f"test $(id -u) != 0; test $(id -u) != {OURS}; test $(id -u) -ge 61184")


@pytest.mark.parametrize("uid", [0, STRANGER])
def test_it_has_no_capability_and_can_gain_none(namespace: str, uid: int) -> None:
    with workload(namespace, uid) as netns:
        assert says(netns, "! grep -qE '^Cap(Inh|Prm|Eff|Amb):.*[1-9a-f]' /proc/self/status")
        assert says(netns, "grep -qE 'NoNewPrivs:.1' /proc/self/status")


@pytest.mark.parametrize("uid", [0, OURS, STRANGER])
def test_it_reads_nothing_of_ours(namespace: str, uid: int, tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.is_relative_to("/tmp/pytest-of-root"):
            parent.chmod(0o755)
    key = tmp_path / "key.pem"
    key.write_text("secret", encoding="ascii")
    key.chmod(0o600)
    with workload(namespace, uid) as netns:
        for owner in (0, OURS):
            os.chown(key, owner, owner)
            assert not says(netns, f"cat {key}")
        key.chmod(0o644)
        assert says(netns, f"cat {key}")


def test_a_slow_one_is_killed_with_all_that_it_began(namespace: str, tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.is_relative_to("/tmp/pytest-of-root"):
            parent.chmod(0o777)
    pids = tmp_path / "pids"
    with workload(namespace, 0) as netns:
        script = f"setsid sleep 600 & echo $! > {pids}; sleep 600 & echo $! >> {pids}; wait"
        assert not passes(netns, "sh", "-c", script, seconds=2)
        for pid in map(int, pids.read_text(encoding="ascii").split()):
            with pytest.raises(ProcessLookupError):
                _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)


def test_without_a_process_of_the_workload_nothing_runs(namespace: str) -> None:
    with pytest.raises(NotReadyError):
        passes(f"/run/netns/{namespace}", "true")
    with pytest.raises(InvalidInputError):
        passes(f"/run/netns/{namespace}")
