"""A state directory that is full or read-only: what is in force goes on, and it is said once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshd import wire
from tests.full_disk import full
from tests.node.endpoints import endpoints
from tests.node.test_two_nodes import address, is_connected, join, new_token, set_role, state_of

if TYPE_CHECKING:
    from tests.node.node import Node

FULL = "No space left on device"
READ_ONLY = "Read-only file system"


class Disk:
    """A small file system of its own."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"mn{os.getpid()}-disk-", dir="/run"))
        options = "size=4m,nr_inodes=1000,mode=700"
        command = ["mount", "-t", "tmpfs", "-o", options, "meshd-test", str(self.path)]
        subprocess.run(command, check=True, timeout=10)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, timeout=10)
        self.path.rmdir()

    @contextlib.contextmanager
    def broken(self, how: str) -> Generator[None]:
        if how == FULL:
            with full(self.path):
                yield
            return
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, mode: str) -> None:
        command = ["mount", "-o", f"remount,{mode}", str(self.path)]
        subprocess.run(command, check=True, timeout=10)


Made = tuple["Node", Disk]


@contextlib.contextmanager
def with_disk(make: Callable[..., Node]) -> Generator[Made]:
    """A node that is not started, with its state on a disk of its own."""
    made, disk = make(), Disk()
    made.paths.lib.symlink_to(disk.path)
    try:
        yield made, disk
    finally:
        made.close()
        disk.close()


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Iterator[Made]:
    with with_disk(make) as (made, disk):
        control = {"address": "127.0.0.1", "port": 0}
        set_role(made, node="server", role="server", control=control)
        made.start()
        made.eventually(made.paths.control_port.exists, "the server listens")
        yield made, disk


@pytest.fixture(scope="module")
def stranger(make: Callable[..., Node]) -> Iterator[Made]:
    """It runs, and has not joined."""
    with with_disk(make) as (made, disk):
        set_role(made, node="agent")
        made.start()
        yield made, disk


@pytest.fixture(scope="module")
def agent(server: Made, stranger: Made) -> Made:
    made, _ = stranger
    assert join(made, address(server[0]), new_token(server[0])) == (0, "")
    write = made.write
    server[0].apply(write.dump(write.namespace("mesh", enrolled=True), write.service("far")))
    made.eventually(lambda: made.meshctl("get", "svc/far", "-n", "mesh").status == 0, "told")
    far = write.deployment("far", program="server.py", ready=8080)
    made.up(write.dump(write.deployment("bob"), far))
    serves(made, "far", "it serves")
    return stranger


def serves(node: Node, host: str, what: str, *arguments: str) -> None:
    """Until bob gets an answer from it."""
    url = f"http://{host}.mesh/"
    try:
        node.eventually(lambda: node.status_of("bob", url, *arguments) == "200", what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{endpoints(node, host)}") from None


@pytest.mark.parametrize("how", [FULL, READ_ONLY])
def test_a_node_that_cannot_keep_its_credentials_does_not_use_up_the_token(
    server: Made, stranger: Made, how: str
) -> None:
    node, disk = stranger
    token = new_token(server[0])
    before = node.paths.settings.read_text()
    with disk.broken(how):
        status, error = join(node, address(server[0]), token)
    assert status == 1
    assert re.fullmatch(rf"/\S+: cannot be written: {how}; the token was not used", error)
    assert state_of(server[0], token) == "valid"
    assert node.paths.settings.read_text() == before
    assert not (node.paths.node_file).exists()


@pytest.mark.parametrize("how", [FULL, READ_ONLY])
def test_an_agent_goes_on_says_what_is_wrong_once_and_mends_itself(
    server: Made, agent: Made, how: str
) -> None:
    node, disk = agent
    write = node.write
    name = how.split(" ", 1)[0].lower()
    begin = len(node.log)
    patterns = [
        rf"^/\S+/{file}: cannot be written: {how}; "
        for file in ("applied.json", "server-state", "identity/leaves")
    ]

    def says(text: str) -> list[int]:
        return [len(re.findall(pattern.removeprefix("^"), text)) for pattern in patterns]

    begins_with_whole_files(node)
    with disk.broken(how):
        server[0].apply(write.dump(write.service(name, app="far")))
        get = ("get", f"svc/{name}", "-n", "mesh")
        node.eventually(lambda: node.meshctl(*get).status == 0, "it is told")
        # The resolver may learn of it last: who asks too early is sent outside, and waits there.
        serves(node, name, "it is in force", "--max-time", "2")
        node.up(write.dump(write.deployment(f"on-{name}")))
        try:
            node.eventually(
                lambda: says(node.meshctl("status").errors) == [1, 1, 1], "each file is named once"
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{node.meshctl('status').errors}") from None
        assert node.meshctl("status").status == 1
        assert says(node.log[begin:]) == [1, 1, 1]
        os.kill(node.supervisor_pid, signal.SIGTERM)
        node.wait_supervisor()
        node.start()
        serves(node, name, "also after a restart")
    node.eventually(lambda: is_connected(node) and not node.meshctl("status").errors, "mended")
    kept = (node.paths.lib / "server-state").read_bytes()
    assert f"{name}".encode() in kept
    leaves = b"".join(path.read_bytes() for path in (disk.path / "identity/leaves").iterdir())
    assert f"sa/on-{name}".encode() in leaves


def begins_with_whole_files(node: Node) -> None:
    """A new role writes the whole of a file first. What others append may fit into its last page,
    although the disk is full."""
    node.ask("supervisor", wire.RestartRoles(("mesh",)))
    node.eventually(node.is_well, "the mesh role is back")


def has_newest_certificate(agent: Node) -> None:
    """It renews its own once after each start, if it has to at a later try, and comes with the new
    one: the server has to write down both."""

    def renewals() -> int:
        return agent.log.count("this node has a new certificate")

    before = renewals()
    agent.ask("supervisor", wire.RestartRoles(("identity",)))
    agent.eventually(lambda: renewals() > before, "its certificate is renewed")
    agent.ask("supervisor", wire.RestartRoles(("mesh",)))
    agent.eventually(lambda: is_connected(agent), "it is connected anew")


def test_a_server_whose_disk_is_full_says_no_and_loses_nothing(
    server: Made, agent: Made, make: Callable[..., Node]
) -> None:
    node, disk = server
    has_newest_certificate(agent[0])
    late = make()
    set_role(late, node="late")
    token = new_token(node)
    kept = (disk.path / "identity" / "tokens.json").read_bytes()
    begins_with_whole_files(node)
    with disk.broken(FULL):
        applied = node.meshctl("apply", "-f", "-", text=node.write.dump(node.write.service("new")))
        assert applied.status == 1
        assert re.fullmatch(rf"/\S+/applied.json: cannot be written: {FULL}\n", applied.errors)
        refused = rf"/\S+/tokens.json: cannot be written: {FULL}; nothing was changed"
        for words in (("token", "create"), ("node", "remove", "agent")):
            done = node.meshctl(*words)
            assert (done.status, bool(re.fullmatch(f"{refused}\n", done.errors))) == (1, True)
        status, error = join(late, address(node), token)
        assert (status, bool(re.fullmatch(rf"server \S+ refused: {refused}", error))) == (1, True)
        agent[0].up(node.write.dump(node.write.deployment("more")))
        agent[0].eventually(agent[0].is_well, "certificates of workloads need no disk")
    assert (disk.path / "identity" / "tokens.json").read_bytes() == kept
    assert node.meshctl("get", "svc/new", "-n", "default").status == 1
    assert is_connected(agent[0])
    done = late.meshctl("join", address(node), "--token", token)
    assert (done.status, done.errors) == (0, "")
    late.close()
