"""A probe that is a program has the rights and the place of its workload, and never ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.capture.host import cgroups
from meshd.capture.pods.namespaces import Pins
from meshd.settings import Paths
from meshd.supervisor.probing import Probing
from tests.waiting import PATIENCE

OURS = pwd.getpwnam("meshd").pw_uid
STRANGER = pwd.getpwnam("nobody").pw_uid
UID = "mesh.vm"


class Passes(Protocol):
    def __call__(self, netns: str, *command: str, seconds: float = 20) -> bool: ...


Says = Callable[[str, str], bool]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"meshd-probing-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def wait_for_sleep(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/comm").read_text(encoding="ascii") != "sleep\n":
        assert time.monotonic() < deadline


@contextlib.contextmanager
def workload(namespace: str, uid: int) -> Generator[str]:
    """A process in the namespace; gives the namespace's path."""
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    sleeper = subprocess.Popen(["ip", "netns", "exec", namespace, *user, "sleep", "600"])
    try:
        wait_for_sleep(sleeper.pid)
        yield f"/run/netns/{namespace}"
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    made = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    yield made
    Pins(made.netns).unpin(UID)


@pytest.fixture
def passes(paths: Paths) -> Passes:
    """The namespace is the workload's that is captured."""

    def run(netns: str, *command: str, seconds: float = 20) -> bool:
        Pins(paths.netns).pin(UID, Path(netns))
        return asyncio.run(Probing(paths, {0, OURS}).passes(command, seconds, UID))

    return run


@pytest.fixture
def says(passes: Passes) -> Says:
    return lambda netns, script: passes(netns, "sh", "-ec", script)


def test_it_runs_as_the_user_and_in_the_namespace_of_the_workload(
    namespace: str, says: Says
) -> None:
    with workload(namespace, STRANGER) as netns:
        inode = Path(netns).stat().st_ino
        assert says(netns, f"test $(id -u) = {STRANGER}")
        assert says(netns, f"test $(stat -Lc %i /proc/self/ns/net) = {inode}")
        assert not says(netns, "exit 3")


@pytest.mark.parametrize("uid", [0, OURS])
def test_it_runs_neither_as_root_nor_as_one_of_our_users(
    namespace: str, uid: int, says: Says
) -> None:
    with workload(namespace, uid) as netns:
        assert says(netns, f"test $(id -u) != 0; test $(id -u) != {OURS}; test $(id -u) -ge 61184")


@pytest.mark.parametrize("uid", [0, STRANGER])
def test_it_has_no_capability_and_can_gain_none(namespace: str, uid: int, says: Says) -> None:
    with workload(namespace, uid) as netns:
        assert says(netns, "! grep -qE '^Cap(Inh|Prm|Eff|Amb):.*[1-9a-f]' /proc/self/status")
        assert says(netns, "grep -qE 'NoNewPrivs:.1' /proc/self/status")


@pytest.mark.parametrize("uid", [0, OURS, STRANGER])
def test_it_reads_nothing_of_ours(namespace: str, uid: int, says: Says, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("uid", [0, STRANGER])
@pytest.mark.parametrize("end", ["wait", "exit 0"])
def test_what_one_has_begun_ends_with_it(
    namespace: str, uid: int, end: str, passes: Passes, tmp_path: Path
) -> None:
    """Also what has left its session, and whose parent has ended."""
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.is_relative_to("/tmp/pytest-of-root"):
            parent.chmod(0o777)
    pids = tmp_path / "pids"
    with workload(namespace, uid) as netns:
        script = (
            f"setsid sleep 600 & echo $! > {pids}; sleep 600 & echo $! >> {pids};"
            f' (setsid sh -c "echo \\$\\$ >> {pids}; exec sleep 600" &);'
            f" until test $(wc -l < {pids}) = 3; do :; done; {end}"
        )
        # What waits is ended: after as long as this machine needs to begin all three.
        for seconds in (2, 8, 30) if end == "wait" else (PATIENCE,):
            assert passes(netns, "sh", "-c", script, seconds=seconds) == (end == "exit 0")
            begun = _pids_in(pids)
            for pid in begun:
                with pytest.raises(ProcessLookupError):
                    _wait_until_gone(pid)
            if len(begun) == 3:
                return
        pytest.fail("it had no time to begin all three")


def _pids_in(file: Path) -> list[int]:
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)


def test_without_a_process_of_the_workload_nothing_runs(namespace: str, passes: Passes) -> None:
    with pytest.raises(NotReadyError):
        passes(f"/run/netns/{namespace}", "true")
    with pytest.raises(InvalidInputError):
        passes(f"/run/netns/{namespace}")


@pytest.mark.parametrize("uid", ["mesh.other", "mesh.*", "*", "../mesh.vm", "", "m" * 300])
def test_it_runs_in_no_other_place_than_one_that_is_captured(
    namespace: str, uid: str, passes: Passes, paths: Paths
) -> None:
    """Whoever asks names a workload: root alone says where that is."""
    with workload(namespace, STRANGER) as netns:
        assert passes(netns, "true")
        with pytest.raises((NotReadyError, InvalidInputError)):
            asyncio.run(Probing(paths, {0, OURS}).passes(("true",), 2, uid))


def test_one_of_the_host_runs_below_the_control_group_that_is_captured(paths: Paths) -> None:
    group = cgroups.root() / f"probing-{os.getpid()}"
    group.mkdir()
    user = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--"]
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    sleeper = subprocess.Popen([*enter, *user, "sleep", "600"])
    probing = Probing(paths, {0, OURS})
    script = f"grep -q ::/{group.name}/ /proc/self/cgroup && test $(id -u) = {STRANGER}"
    try:
        wait_for_sleep(sleeper.pid)
        with pytest.raises(NotReadyError, match="not captured"):
            asyncio.run(probing.passes(("true",), 2, UID))
        paths.run.mkdir(parents=True)
        paths.host_captured.write_text(json.dumps({UID: group.name}), encoding="ascii")
        assert asyncio.run(probing.passes(("sh", "-c", script), 20, UID))
        paths.host_captured.write_text(json.dumps({UID: ""}), encoding="ascii")
        with pytest.raises(NotReadyError):
            asyncio.run(probing.passes(("true",), 2, UID))
    finally:
        sleeper.kill()
        sleeper.wait()
        group.rmdir()
