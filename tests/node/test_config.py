"""Whatever configuration comes, the last good state serves on, and one clear line says why."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.node import Node
    from tests.node.process import Process

ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: mesh}
spec:
  hosts: [server]
  http:
  - headers: {request: {set: {x-route: NAME}}}
    route: [{destination: {host: HOST}}]
"""
INVALID = {
    "not YAML": "a: [1",
    "another type": ROUTE.replace("[server]", "server"),
    "an unknown field": ROUTE.replace("http:", "htp:"),
    "an unknown kind": ROUTE.replace("VirtualService", "VirtualServices"),
    "an unknown version": ROUTE.replace("istio.io/v1", "istio.io/v9"),
    "no name": ROUTE.replace("name: server, ", ""),
    "a scalar": "hello",
    "twice the same": ROUTE + "---" + ROUTE,
    "a bomb": "a: &a [x, x]\n"
    + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20)
    ),
    "deep": "[" * 100_000,
    "a tag": "!!python/object/apply:os.system [echo]",
    "control characters": "a: \x01",
}


def route(name: str, host: str = "server") -> str:
    return ROUTE.replace("NAME", name).replace("HOST", host)


def route_now(node: Node) -> str:
    """Which route takes requests."""
    (answer,) = node.answers("alice", "http", "server:80", 1)
    return answer["headers"].get("x-route", "")


def one_line(done: Process) -> str:
    assert done.status == 1, done
    (line,) = done.errors.strip().splitlines()
    assert "Traceback" not in line
    assert len(line) < 500
    return line


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_object_is_refused_and_changes_nothing(node: Node, what: str) -> None:
    with node.applied(route("good")):
        assert route_now(node) == "good"
        line = one_line(node.meshctl("apply", "-f", "-", text=INVALID[what]))
        assert line
        assert route_now(node) == "good"


def test_nothing_of_a_file_is_taken_when_one_object_is_invalid(node: Node) -> None:
    bad = route("bad").replace("name: server", "name: worse").replace("http:", "htp:")
    done = node.meshctl("apply", "-f", "-", text=f"{route('good')}---{bad}")
    assert "htp" in one_line(done)
    assert route_now(node) == ""
    assert node.meshctl("get", "virtualservice", "-A", "-o", "name").output.strip() == ""


def test_fifty_megabytes_are_refused(node: Node, tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * 100 + "\n")
    with large.open("a") as file:
        file.writelines(f"k{n}: {'v' * 80}\n" for n in range(560_000))
    assert large.stat().st_size > 50_000_000
    assert "large.yaml" in one_line(node.meshctl("apply", "-f", str(large)))
    node.eventually(node.is_well, "all is well")


def test_a_file_that_turns_bad_keeps_what_it_said_before(node: Node) -> None:
    file = node.paths.config_directory / "route.yaml"
    file.write_text(route("first"))
    try:
        node.eventually(lambda: route_now(node) == "first", "the file is read")
        file.write_text(route("bad").replace("http:", "htp:"))
        node.eventually(lambda: "route.yaml" in node.log, "the log names the file")
        node.eventually(lambda: "htp" in node.meshctl("status").errors, "status says what is wrong")
        assert node.meshctl("status").status == 1
        assert route_now(node) == "first"
        file.write_text(route("second"))
        node.eventually(lambda: route_now(node) == "second", "the file is read again")
    finally:
        file.unlink()
    node.eventually(lambda: route_now(node) == "", "the file is gone")


def garbage() -> list[bytes]:
    return [
        b"\xff" * 4096,
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 5) + b"\xc1\xc1\xc1\xc1\xc1",
        struct.pack(">I", 1 << 20) + b"short",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"",
        struct.pack(">I", 0),
        struct.pack(">I", 60_000) + b"\x91" * 60_000,
    ]


@pytest.mark.parametrize("role", ["mesh", "capture", "identity", "supervisor"])
def test_garbage_on_a_socket_hurts_nobody_else(node: Node, role: str) -> None:
    before = {name: child.pid for name, child in node.children().items()}
    for piece in garbage():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(node.paths.socket(role)))
            client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            try:
                while client.recv(4096):
                    pass
            except (TimeoutError, ConnectionError):
                pass
    assert {name: child.pid for name, child in node.children().items()} == before
    node.eventually(node.is_well, "all is well")
    assert "Traceback" not in node.log


def test_a_refusal_by_envoy_is_reported_and_the_rest_goes_on(node: Node) -> None:
    """A listener on a port at which the pod's own program listens: found by no validation."""
    labels = {"istio": "refused"}
    gateway = node.write.deployment("gateway", program="server.py", ready=8080, labels=labels)
    node.up(node.write.dump(gateway))
    taken = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: refused, namespace: mesh}
spec:
  selector: {istio: refused}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}
"""
    done = node.meshctl("apply", "-f", "-", text=taken)
    try:
        assert done.status == 0, done.errors
        node.eventually(
            lambda: ":8080" in node.meshctl("status").errors, "status tells of a problem"
        )
        assert node.meshctl("status").status == 1
        with node.applied(route("after")):
            node.eventually(lambda: route_now(node) == "after", "other changes are served")
    finally:
        node.meshctl("delete", "gateway", "refused", "-n", "mesh")
        node.up(node.write.dump(gateway | {"spec": gateway["spec"] | {"replicas": 0}}))
    node.eventually(node.is_well, "all is well again")


def test_a_dry_run_tells_what_would_change_and_changes_nothing(node: Node) -> None:
    with node.applied(route("good")):
        done = node.meshctl("apply", "--dry-run", "-f", "-", text=route("better"))
        assert done.status == 1, done
        assert "route of server.mesh.svc:80 in namespace" in done.output
        assert "good → better (VirtualService mesh/server spec.http[0], -:8)" in done.output
        same = node.meshctl("apply", "--dry-run", "-f", "-", text=route("good"))
        assert (same.status, same.output.splitlines()[-1]) == (
            0,
            "nothing would change for any workload in the mesh",
        )
        gone = node.meshctl("delete", "vs", "server", "-n", "mesh", "--dry-run")
        assert (gone.status, "weight of" in gone.output) == (1, False), gone
        refused = node.meshctl("apply", "--dry-run", "-f", "-", text=INVALID["a scalar"])
        assert refused.status == 2, refused
        assert route_now(node) == "good"
