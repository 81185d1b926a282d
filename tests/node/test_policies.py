"""PeerAuthentication: who may come in without mutual TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.node.node import Node

POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: NAME, namespace: mesh}
spec:
  selector: {matchLabels: {app: server}}
  mtls: {mode: MODE}
"""
WELL, REFUSED = "200", "000"


def policy(mode: str) -> str:
    return POLICY.replace("NAME", mode.lower()).replace("MODE", mode)


def from_outside(node: Node, port: int, *arguments: str) -> str:
    address = node.pod("server").plan.address
    return node.status_of("stranger.outside", f"http://{address}:{port}/who", *arguments)


def becomes(node: Node, port: int, status: str) -> None:
    """A proxy that has a listener warms it before it serves it."""
    node.eventually(lambda: from_outside(node, port) == status, f"port {port} gives {status}")


def speaks_tcp(node: Node, client: str, address: str) -> bool:
    """Of two who wait for each other's first words."""
    script = f"exec 3<>/dev/tcp/{address}/9000; read -t 5 -u 3 line; echo $line"
    return '"pod": "server' in node.exec(client, "bash", "-c", script).output


@pytest.mark.parametrize("port", [8080, 7000])
def test_by_default_plain_traffic_is_accepted(node: Node, port: int) -> None:
    assert from_outside(node, port) == WELL
    assert speaks_tcp(node, "stranger.outside", node.pod("server").plan.address)


@pytest.mark.parametrize("port", [8080, 7000])
def test_strict_refuses_plain_traffic_and_keeps_the_mesh_flowing(node: Node, port: int) -> None:
    server = node.pod("server").plan
    with node.applied(policy("STRICT")):
        becomes(node, port, REFUSED)
        assert not speaks_tcp(node, "stranger.outside", server.address)
        v6 = f"http://[{server.address_v6}]:{port}/who"
        assert node.status_of("stranger.outside", v6) == REFUSED
        assert node.status_of("alice", "http://server/who") == WELL
        assert len(node.answers("alice", "tcp", "server:91", 1)) == 1
        assert len(node.answers("alice", "grpc", "server:90", 1)) == 1
    becomes(node, port, WELL)


def test_strict_refuses_a_port_that_no_service_names(node: Node) -> None:
    """What is not declared is inside the mesh all the same."""
    becomes(node, 5555, WELL)
    with node.applied(policy("STRICT")):
        becomes(node, 5555, REFUSED)


def test_a_policy_may_have_another_mode_for_one_port(node: Node) -> None:
    with node.applied(policy("STRICT") + "  portLevelMtls: {8080: {mode: PERMISSIVE}}\n"):
        becomes(node, 7000, REFUSED)
        assert from_outside(node, 8080) == WELL
    with node.applied(policy("PERMISSIVE") + "  portLevelMtls: {8080: {mode: STRICT}}\n"):
        becomes(node, 8080, REFUSED)
        assert from_outside(node, 7000) == WELL


def test_disabled_it_is_plain_for_everybody(node: Node) -> None:
    with node.applied(policy("DISABLE")):
        assert from_outside(node, 8080) == WELL
        node.eventually(
            lambda: node.answers("alice", "http", "server:80", 1)[0]["xfcc"] == [],
            "no certificate is shown any longer",
        )
        assert len(node.answers("alice", "tcp", "server:91", 1)) == 1


def test_a_certificate_of_another_authority_opens_nothing(node: Node) -> None:
    """Mutual TLS is verified, not merely spoken."""
    address = node.pod("server").plan.address
    made = node.exec(
        "stranger.outside",
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "1", "-subj", "/CN=alice", "-keyout", "/tmp/key", "-out", "/tmp/cert"),
        *("-addext", "subjectAltName=URI:spiffe://cluster.local/ns/mesh/sa/alice"),
    )
    assert made.status == 0, made.errors
    for certificate in (("--cert", "/tmp/cert", "--key", "/tmp/key"), ()):
        done = node.curl(
            "stranger.outside", "-k", "--no-alpn", *certificate, f"https://{address}:8080/who"
        )
        assert '"pod"' not in done.output
    with node.applied(policy("STRICT")):
        for port in (8080, 7000, 9000):
            script = (
                "import socket, ssl\n"
                "context = ssl._create_unverified_context()\n"
                "context.load_cert_chain('/tmp/cert', '/tmp/key')\n"
                "context.set_alpn_protocols(['istio'])\n"
                f"raw = socket.create_connection(('{address}', {port}), 60)\n"
                "tls = context.wrap_socket(raw, server_hostname='x')\n"
                "tls.sendall(b'GET /who HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')\n"
                "print('got', tls.recv(10))\n"
            )
            done = node.exec("stranger.outside", "python3", "-W", "ignore", "-c", script)
            assert "got b'" not in done.output.replace("got b''", ""), done.output


LATE_HELLO = """
import socket, ssl, time
context = ssl._create_unverified_context()
context.set_alpn_protocols(['istio'])
raw = socket.create_connection(('ADDRESS', PORT), 60)
time.sleep(0.5)
print(context.wrap_socket(raw, server_hostname='x').selected_alpn_protocol())
"""


@pytest.mark.parametrize("port", [8080, 9000])
def test_a_client_that_is_late_with_its_handshake_is_not_taken_for_a_plain_one(
    node: Node, port: int
) -> None:
    """As that of a proxy is, on a machine that has too much to do."""
    address = node.pod("server").plan.address
    script = LATE_HELLO.replace("ADDRESS", address).replace("PORT", str(port))
    done = node.exec("stranger.outside", "python3", "-W", "ignore", "-c", script)
    assert done.output == "istio\n", done.errors
