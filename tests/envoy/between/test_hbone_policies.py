"""AuthorizationPolicies judge what comes by tunnels as what comes by connections of its own: by the
client's certificate and address, at declared and undeclared ports, as bytes and as requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.test_authorization import policy
from tests.envoy.between.tunnels import Nodes, Tunnel, certified, two_nodes

ACCOUNT = "stranger"
PORTS = (8080, 7000, 9000, 7001, 5555)
"""Declared as HTTP, sniffed twice, as TCP, and not declared."""
HTTP = (8080, 7000)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(nodes: Nodes) -> Iterator[Application]:
    made = Application(nodes.far.hosts["server"].netns, HTTP, (9000, 7001, 5555))
    yield made
    made.close()


def reached(nodes: Nodes, port: int, path: str = "/") -> bool:
    """Whether a program with a certificate gets anything from the application by a tunnel."""
    own = nodes.far.hosts["server"].address
    tunnel = Tunnel.to(nodes.far, own, certified(nodes.near, ACCOUNT))
    try:
        if not tunnel.connect(f"{own}:{port}"):
            return False
        if port not in HTTP:
            # Where nothing declares the protocol, the first bytes are waited for; their echo may
            # come along.
            return tunnel.ask(b"\1\2 no HTTP" if port == 7001 else b"").startswith(BANNER)
        return b" 200 " in tunnel.ask(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    finally:
        tunnel.close()


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ("{}", ()),
        ("{rules: [{}]}", PORTS),
        ("{action: DENY, rules: [{}]}", ()),
        ("{rules: [{from: [{source: {principals: ['*/sa/stranger']}}]}]}", PORTS),
        ("{rules: [{from: [{source: {notPrincipals: ['*/sa/stranger']}}]}]}", ()),
        ("{action: DENY, rules: [{from: [{source: {namespaces: [clients]}}]}]}", ()),
        ("{rules: [{from: [{source: {ipBlocks: [OUTSIDE]}}]}]}", PORTS),
        ("{action: DENY, rules: [{from: [{source: {ipBlocks: [OUTSIDE]}}]}]}", ()),
        ("{rules: [{from: [{source: {notIpBlocks: [OUTSIDE]}}]}]}", ()),
        ("{rules: [{from: [{source: {remoteIpBlocks: [OUTSIDE]}}]}]}", PORTS),
        ("{rules: [{when: [{key: destination.ip, values: [OWN]}]}]}", PORTS),
        ("{action: DENY, rules: [{when: [{key: destination.ip, values: [OWN]}]}]}", ()),
        ("{rules: [{to: [{operation: {ports: ['9000', '8080']}}]}]}", (8080, 9000)),
        ("{rules: [{to: [{operation: {notPorts: ['15008', '9000']}}]}]}", (8080, 7000, 7001, 5555)),
        ("{rules: [{to: [{operation: {methods: [GET]}}]}]}", HTTP),
        ("{action: DENY, rules: [{to: [{operation: {methods: [CONNECT]}}]}]}", HTTP),
        ("{rules: [{to: [{operation: {paths: [/other]}}]}]}", ()),
        ("{rules: [{when: [{key: connection.sni, values: ['*']}]}]}", ()),
    ],
)
def test_a_policy_holds_in_a_tunnel(nodes: Nodes, spec: str, ports: tuple[int, ...]) -> None:
    spec = spec.replace("OUTSIDE", nodes.far.outside.address)
    nodes.load(policy(spec.replace("OWN", nodes.far.hosts["server"].address)))
    assert tuple(port for port in PORTS if reached(nodes, port)) == ports


def test_a_change_holds_for_the_next_request_in_a_tunnel_that_is_open(nodes: Nodes) -> None:
    own = nodes.far.hosts["server"].address
    nodes.load()
    tunnel = Tunnel.to(nodes.far, own, certified(nodes.near, ACCOUNT))
    try:
        assert tunnel.connect(f"{own}:8080")
        question = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        assert b" 200 " in tunnel.ask(question)
        nodes.load(policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}"))
        assert b" 403 " in tunnel.ask(question)
        nodes.load(policy("{action: DENY, rules: [{to: [{operation: {ports: ['9000']}}]}]}"))
        assert not tunnel.connect(f"{own}:9000") or tunnel.ask(b"") != BANNER
        assert tunnel.connect(f"{own}:5555")
        assert tunnel.ask(b"") == BANNER
    finally:
        tunnel.close()
