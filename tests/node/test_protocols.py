"""What a service speaks arrives as it was sent, and comes back."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.node.node import Node

FAREWELL = "bye\n"
MIB = 1 << 20


@pytest.mark.parametrize("target", ["server:80", "server:70", "bare:8080"])
def test_http_reaches_a_declared_a_sniffed_and_a_headless_port(node: Node, target: str) -> None:
    answers = node.answers("alice", "http", target, 5, 2)
    assert len(answers) == 10
    assert all(answer["pod"].startswith("server") for answer in answers)
    assert all(answer["headers"]["x-request-id"] for answer in answers)


def test_grpc_reaches_its_port(node: Node) -> None:
    answers = node.answers("alice", "grpc", "server:90", 5, 2)
    assert len(answers) == 10
    assert all("URI=spiffe://" in answer["xfcc"][0] for answer in answers)


@pytest.mark.parametrize("target", ["server:91", "bare:9000"])
def test_a_server_may_speak_first_and_a_client_half_close(node: Node, target: str) -> None:
    """On a declared TCP port, and at a headless service."""
    answers = node.answers("alice", "tcp", target, 5, 2)
    assert len(answers) == 10
    assert all(answer["echoed"] for answer in answers)
    assert {answer["farewell"] for answer in answers} == {FAREWELL}


def _peers(answers: list[dict[str, Any]]) -> set[str]:
    return {answer["peer"][0].removeprefix("::ffff:") for answer in answers}


@pytest.mark.parametrize("how", ["http", "tcp"])
def test_the_application_sees_its_clients_own_address(node: Node, how: str) -> None:
    client = node.pod("bob").plan
    port = {"http": 80, "tcp": 91}[how]
    assert _peers(node.answers("bob", how, f"server:{port}", 2, 2)) == {client.address}


@pytest.mark.parametrize("how", ["http", "tcp"])
@pytest.mark.parametrize("client", ["bob", "stranger.outside"])
def test_a_pod_is_reached_at_its_own_addresses(node: Node, how: str, client: str) -> None:
    server, own = node.pod("server").plan, node.pod(client).plan
    port = {"http": 8080, "tcp": 9000}[how]
    assert _peers(node.answers(client, how, f"{server.address}:{port}")) == {own.address}
    assert _peers(node.answers(client, how, f"[{server.address_v6}]:{port}")) == {own.address_v6}


def test_a_workload_reaches_itself_by_its_service_name(node: Node) -> None:
    assert len(node.answers("server", "http", "server:80", 2)) == 2
    assert len(node.answers("server", "tcp", "server:91", 2)) == 2


@pytest.mark.parametrize("port", [80, 70])
def test_large_bodies_go_both_ways(node: Node, port: int) -> None:
    size = 100 * MIB
    script = f"head -c {size} /dev/zero | curl -sS --max-time 100 -T - http://server:{port}/put"
    assert node.exec("alice", "sh", "-c", script).json()["received"] == size
    script = f"curl -sS --max-time 100 http://server:{port}/bytes/{size} | wc -c"
    assert node.exec("alice", "sh", "-c", script).json() == size


def test_large_streams_go_both_ways(node: Node) -> None:
    """Through the greeting and back: what is echoed is all that was sent, and the greeting."""
    size = 50 * MIB
    script = (
        "import socket, sys, threading\n"
        "c = socket.create_connection(('server', 91), 60)\n"
        "f = c.makefile('rb'); f.readline()\n"
        "def send():\n"
        f"    for _ in range({size} >> 20): c.sendall(b'y' * {MIB})\n"
        "    c.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=send).start()\n"
        "got = 0\n"
        f"while part := f.read({MIB}): got += len(part)\n"
        "print(got)\n"
    )
    done = node.exec("alice", sys.executable, "-c", script)
    assert done.json() == size + len(FAREWELL)


def test_a_thousand_connections_at_once(node: Node) -> None:
    assert node.answers("alice", "many", "server:91", 1000) == [True] * 1000


def _rule(**http: str | bool) -> str:
    settings = ", ".join(f"{name}: {value}" for name, value in http.items())
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: server, namespace: mesh}}
spec: {{host: server, trafficPolicy: {{connectionPool: {{http: {{{settings}}}}}}}}}
"""


def test_an_upgrade_to_http2_ends_before_the_application(node: Node) -> None:
    """Which speaks HTTP/1.1 only; WebSockets go through it."""
    with node.applied(_rule(h2UpgradePolicy="UPGRADE")):
        assert len(node.answers("alice", "http", "server:80", 5, 2)) == 10
        done = node.curl("alice", "--http2-prior-knowledge", "http://server:80/who")
        assert done.json()["pod"].startswith("server")
        _check_websocket(node, 80)


CALL = """
apiVersion: v1
kind: Service
metadata: {name: rpc, namespace: mesh}
spec: {selector: {app: server}, ports: [{name: http-rpc, port: 90, targetPort: 9090}]}
---
"""


def test_an_application_is_spoken_to_in_the_clients_protocol_if_a_rule_says_so(node: Node) -> None:
    """It speaks HTTP/2 on a port that is declared as HTTP."""
    rule = _rule(useClientProtocol=True).replace("host: server", "host: rpc")
    with node.applied(CALL + rule):
        assert len(node.answers("alice", "grpc", "rpc:90", 3)) == 3
    with node.applied(_rule(useClientProtocol=True)):
        assert len(node.answers("alice", "http", "server:80", 3)) == 3


@pytest.mark.parametrize("port", [80, 70])
def test_websockets_are_passed_on(node: Node, port: int) -> None:
    _check_websocket(node, port)


def _check_websocket(node: Node, port: int) -> None:
    script = (
        "import socket\n"
        f"c = socket.create_connection(('server', {port}), 60); f = c.makefile('rwb')\n"
        "f.write(b'GET /chat HTTP/1.1\\r\\nhost: server\\r\\nconnection: Upgrade\\r\\n'\n"
        "    b'upgrade: websocket\\r\\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n'\n"
        "    b'sec-websocket-version: 13\\r\\n\\r\\n'); f.flush()\n"
        "print(f.readline().decode().strip())\n"
        "while f.readline().strip(): pass\n"
        "f.write(b'\\x81\\x02hi\\n'); f.flush()\n"
        "print(f.readline() == b'\\x81\\x02hi\\n')\n"
    )
    done = node.exec("alice", sys.executable, "-c", script)
    assert done.output.splitlines() == ["HTTP/1.1 101 Switching Protocols", "True"], done.errors


def test_http2_is_found_out_where_nothing_is_declared(node: Node) -> None:
    assert len(node.answers("alice", "grpc", "server:72", 3)) == 3


def test_a_client_may_speak_http2_to_a_server_of_http1(node: Node) -> None:
    done = node.curl("alice", "--http2-prior-knowledge", "http://server:80/who")
    assert done.json()["pod"].startswith("server")


def test_a_port_that_nothing_listens_on_is_refused_rather_than_hung(node: Node) -> None:
    server = node.pod("server").plan
    script = f"import socket; socket.create_connection(('{server.address}', 4), 20).recv(1)"
    argv, environment = node.command("alice", sys.executable, "-c", script)
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert "timed out" not in done.stderr
