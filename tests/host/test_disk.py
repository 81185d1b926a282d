"""meshd.service with a full or a read-only disk: what worked goes on, also over a restart."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.full_disk import full
from tests.host.node import Node
from tests.host.traffic import is_lossless
from tests.waiting import eventually

STATE = "/var/lib/meshd"
FULL = "No space left on device"
READ_ONLY = "Read-only file system"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n"
CHANGE = ("meshctl", "apply", "-f", "-")


@pytest.fixture(scope="module")
def small(node: Node) -> Iterator[Node]:
    """Its state is on a small disk of its own."""
    node.get_well()
    shell = ("sh", "-ec")
    node.machine.ask(
        *shell,
        f"""systemctl stop meshd; mv {STATE} {STATE}.kept; mkdir {STATE}
        mount -t tmpfs -o size=4m,nr_inodes=1000 state {STATE}
        chown --reference={STATE}.kept {STATE}; chmod 700 {STATE}
        cp -a {STATE}.kept/. {STATE}; systemctl start meshd""",
    )
    node.get_well()
    yield node
    node.machine.ask(
        *shell,
        f"""systemctl stop meshd; umount --lazy {STATE}; rmdir {STATE}
        mv {STATE}.kept {STATE}; systemctl start meshd""",
    )


@contextlib.contextmanager
def broken(node: Node, how: str) -> Generator[None]:
    if how == FULL:
        with full(Path(f"/proc/{node.machine.leader}/root{STATE}")):
            yield
        return
    node.machine.ask("mount", "-o", "remount,ro", STATE)
    try:
        yield
    finally:
        node.machine.ask("mount", "-o", "remount,rw", STATE)


def worries(node: Node) -> list[str]:
    return node.machine.run("meshctl", "status").stderr.splitlines()


@pytest.mark.parametrize("how", [FULL, READ_ONLY])
def test_what_worked_goes_on_also_over_a_restart(small: Node, how: str) -> None:
    before = small.proxies()
    told = f"{STATE}: {how}; what changes now cannot be kept"
    with broken(small, how), small.load(100) as reports:
        eventually(lambda: worries(small) == [told], "it says so")
        assert small.machine.run("meshctl", "status").returncode == 1
        small.systemctl("restart", "meshd")
        small.get_well()
        refused = small.machine.run(*CHANGE, text=NAMESPACE)
        assert refused.returncode == 1
        assert re.fullmatch(rf"{STATE}/applied\.json: cannot be written: {how}\n", refused.stderr)
        eventually(lambda: worries(small) == [told], "it says so again")
    is_lossless(*reports)
    assert small.proxies() == before

    def said() -> int:
        entries = small.machine.journal("--unit=meshd", "MESHD_EVENT=disk", "PRIORITY=3")
        return [entry["MESSAGE"] for entry in entries].count(told)

    eventually(lambda: said() >= 2, "each process says it")
    assert said() == 2, "once"
    eventually(lambda: not worries(small), "it is well again")
    assert small.machine.ask(*CHANGE, text=NAMESPACE)
    small.machine.ask("meshctl", "delete", "ns", "new")


def test_it_starts_from_nothing_but_what_is_on_a_disk_that_nothing_can_be_written_to(
    small: Node,
) -> None:
    small.machine.write("/etc/systemd/system/odd.service", "[Service]\nExecStart=sleep 99\n")
    with broken(small, READ_ONLY):
        small.systemctl("stop", "meshd", "meshd-proxies.slice")
        small.systemctl("start", "meshd")
        small.get_well()
        assert small.status_of("http://server:8080/") == "200"
        refused = small.machine.run("meshctl", "enroll", "odd")
        assert (
            f"enrollments.json: cannot be written: {READ_ONLY}; nothing was done" in refused.stderr
        )
        left = small.machine.ask("systemctl", "show", "--property=Slice,DropInPaths", "odd")
        assert left == "Slice=system.slice\nDropInPaths=\n"
