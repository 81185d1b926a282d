"""``meshctl enroll PATH``: a network namespace that somebody else made, a container's say."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.node.node import Node

SERVER, CLIENT = "198.18.73.1", "198.18.73.2"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE)


@dataclasses.dataclass
class Container:
    """A namespace at a path, at one end of a wire, and what runs there."""

    name: str
    address: str
    gateway: str
    server: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    @property
    def _files(self) -> Path:
        """``ip netns exec`` shows these to what it runs."""
        return Path("/etc/netns") / self.name

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        self._files.mkdir(parents=True)
        text = f"nameserver {self.gateway}\nsearch mesh.svc.cluster.local svc.cluster.local\n"
        (self._files / "resolv.conf").write_text(text)

    def connect(self) -> None:
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.name, "route", "add", "default", "via", self.gateway)

    def serve(self, node: Node, port: int) -> None:
        program = str(node.images / "service.py")
        line = self.inside(sys.executable, program, self.name, str(port))
        self.server = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        look = self.inside("ss", "-Hltn", f"sport = :{port}")
        node.eventually(
            lambda: bool(subprocess.run(look, capture_output=True, check=True).stdout), "it listens"
        )

    def inside(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def get(self, url: str) -> dict[str, Any]:
        line = self.inside("curl", "-sS", "--max-time", "20", url)
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, f"{url}: {done.stdout} {done.stderr}"
        return json.loads(done.stdout)

    def knows(self, url: str) -> bool:
        """Whether who answers there sees a client with a certificate."""
        line = self.inside("curl", "-sSf", "--max-time", "20", url)
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode == 0 and bool(json.loads(done.stdout)["xfcc"])

    def destroy(self) -> None:
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        shutil.rmtree(self._files, ignore_errors=True)


def join(one: Container, other: Container) -> None:
    ends = ("type", "veth", "peer", "eth0", "netns", other.name)
    ip("-n", one.name, "link", "add", "eth0", *ends)
    one.connect()
    other.connect()


@pytest.fixture
def pair(node: Node) -> Iterator[tuple[Container, Container]]:
    """Server and client."""
    server = Container(f"mne{os.getpid()}-s", SERVER, CLIENT)
    client = Container(f"mne{os.getpid()}-c", CLIENT, SERVER)
    try:
        server.make()
        client.make()
        join(server, client)
        server.serve(node, 8000)
        yield server, client
    finally:
        for one in (server, client):
            node.meshctl("unenroll", one.path)
            one.destroy()


def enroll(node: Node, one: Container, *options: str) -> str:
    done = node.meshctl("enroll", one.path, "-n", "mesh", *options)
    assert done.status == 0, done.errors
    return done.output


def test_two_containers_talk_under_their_identities_and_leave_without_a_trace(
    node: Node, pair: tuple[Container, Container]
) -> None:
    server, client = pair
    assert "captured and proven" in enroll(
        node, server, "--name", "kiosk", "--service", "kiosk", "--port", "80:8000=http"
    )
    enroll(node, client, "--service-account", "visitor")

    answer = client.get("http://kiosk/")

    assert answer["name"] == server.name
    assert answer["peer"] == CLIENT
    assert "URI=spiffe://cluster.local/ns/mesh/sa/visitor" in answer["xfcc"][0]
    for one in pair:
        assert node.meshctl("unenroll", one.path).status == 0
        rules = subprocess.run(
            one.inside("iptables-save"), capture_output=True, text=True, check=True
        )
        assert "MESHD" not in rules.stdout.upper()
    assert client.get(f"http://{SERVER}:8000/")["xfcc"] == []
    assert "kiosk" not in node.meshctl("get", "service", "-n", "mesh").output


def test_one_that_was_made_anew_at_its_path_is_enrolled_by_the_same_command(
    node: Node, pair: tuple[Container, Container]
) -> None:
    server, client = pair
    options = ("--name", "kiosk", "--service", "kiosk", "--port", "80:8000=http")
    enroll(node, server, *options)
    enroll(node, client)
    assert client.get("http://kiosk/")["name"] == server.name

    server.destroy()
    server.make()
    ip("-n", client.name, "link", "del", "eth0")
    join(server, client)
    server.serve(node, 8000)

    def problem() -> str:
        rows = {row.workload: row for row in node.statuses().workloads}
        return "" if rows["kiosk"].proven else rows["kiosk"].problem

    # Nobody has said that it is the same one: until then it is outside the mesh.
    node.eventually(lambda: "another network namespace" in problem(), "status says so")
    assert (
        "MESHD"
        not in subprocess.run(
            server.inside("iptables-save"), capture_output=True, text=True, check=True
        ).stdout.upper()
    )
    assert "captured and proven" in enroll(node, server, *options)

    # A proxy may still hold a connection to what was there before.
    node.eventually(lambda: client.knows("http://kiosk/"), "the new one knows its client")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("/run/netns/no-such-one",), "not found"),
        (("/proc/self/ns/net", "--name", "x"), "the host's own network namespace"),
        (("/etc/passwd",), "is not a network namespace"),
    ],
)
def test_a_path_that_is_no_separate_namespace_is_refused_in_a_line(
    node: Node, words: tuple[str, ...], told: str
) -> None:
    done = node.meshctl("enroll", *words)

    assert done.status == 1
    assert told in done.errors
    assert len(done.errors.splitlines()) == 1


def test_a_path_that_makes_no_name_asks_for_one(
    node: Node, pair: tuple[Container, Container]
) -> None:
    server, _ = pair
    assert server.server
    path = f"/proc/{server.server.pid}/ns/net"

    done = node.meshctl("enroll", path)

    assert (done.status, done.errors) == (
        1,
        f"{path} gives no name for the workload; give --name\n",
    )


def test_a_namespace_that_is_not_enrolled_cannot_be_unenrolled(
    node: Node, pair: tuple[Container, Container]
) -> None:
    done = node.meshctl("unenroll", pair[0].path)

    assert (done.status, "is not enrolled" in done.errors) == (1, True)
