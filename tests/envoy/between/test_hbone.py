"""Connections between nodes share tunnels, and mean what mutual TLS of their own means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from meshd.model.interception import HBONE_PORT
from meshd.proxy.admin import Admin
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.tunnels import MODE, SERVERS, VIRTUAL, Nodes, Tunnel, certified, two_nodes
from tests.envoy.captured.place import eventually

DENIED = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied, namespace: servers}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/clients/sa/client]}}]}]
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
def applications(nodes: Nodes) -> Iterator[dict[str, Application]]:
    made = {
        name: Application(nodes.far.hosts[name].netns, (8080, 7000), (9000, 9001))
        for name in SERVERS
    }
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def tunnel(nodes: Nodes) -> Iterator[Tunnel]:
    """Of a program that holds a client's certificate."""
    nodes.load(MODE % "STRICT")
    made = open_tunnel(nodes)
    yield made
    made.close()


def open_tunnel(nodes: Nodes, server: str = "server") -> Tunnel:
    context = certified(nodes.near, "stranger")
    return Tunnel.to(nodes.far, nodes.far.hosts[server].address, context)


def tunnels(nodes: Nodes, server: str = "server") -> int:
    return nodes.received(server, HBONE_PORT)


def test_connections_of_one_identity_share_a_tunnel_and_others_have_their_own(
    nodes: Nodes, applications: dict[str, Application]
) -> None:
    nodes.load(MODE % "STRICT")
    direct, before = nodes.received("server", 9000), tunnels(nodes)
    opened: list[int] = []
    for name in ("client", "other", "client", "other"):
        peers = len(applications["server"].peers)
        assert [nodes.first_words(name) for _ in range(10)] == [BANNER] * 10
        assert set(applications["server"].peers[peers:]) == {nodes.near.hosts[name].address}
        opened.append(tunnels(nodes) - before)
    assert nodes.received("server", 9000) == direct
    assert opened == [1, 2, 2, 2]


def test_workloads_of_one_identity_have_tunnels_of_their_own(
    nodes: Nodes, applications: dict[str, Application]
) -> None:
    """Each opens them in its own namespace."""
    nodes.load(MODE % "STRICT", account="client")
    assert nodes.first_words("client") == BANNER
    before, peers = tunnels(nodes), len(applications["server"].peers)
    assert [nodes.first_words("other") for _ in range(5)] == [BANNER] * 5
    assert tunnels(nodes) == before + 1
    assert set(applications["server"].peers[peers:]) == {nodes.near.hosts["other"].address}


@pytest.mark.usefixtures("applications")
def test_both_sides_know_who_connects_by_name(nodes: Nodes) -> None:
    """It is information only: see the attacks."""
    nodes.load(MODE % "STRICT", access_log="all")
    for name in ("client", "other"):
        said = (
            f'"k8s.namespace.name=clients,k8s.pod.name={name},service.name={name},'
            'service.version=latest"\n'
        )

        def is_logged(name: str = name, said: str = said) -> bool:
            """What is in an older tunnel is logged as was configured then."""
            return nodes.first_words(name) == BANNER and said in nodes.far.log.read_text()

        eventually(is_logged, said)


@pytest.mark.usefixtures("applications")
def test_connections_beyond_the_rate_of_a_workload_wait(nodes: Nodes) -> None:
    """As those do of which the kernel drops the first packet."""
    nodes.load(MODE % "STRICT", rate=20)
    before = refused(nodes)
    assert [nodes.first_words("client") for _ in range(150)] == [BANNER] * 150
    assert refused(nodes) > before


def refused(nodes: Nodes) -> int:
    """Requests for connections that were above the rate."""
    name = "hbone.http_local_rate_limit.rate_limited"
    return asyncio.run(Admin(nodes.far.admin).stats(f"^{name}$")).get(name, 0)


@pytest.mark.usefixtures("applications")
@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE", "DISABLE"])
def test_policies_mean_what_they_mean_without_tunnels(nodes: Nodes, mode: str) -> None:
    nodes.load(MODE % mode)
    direct = nodes.received("server", 9000)
    assert nodes.first_words("client") == BANNER
    assert nodes.received("server", 9000) - direct == (1 if mode == "DISABLE" else 0)


@pytest.mark.usefixtures("applications")
def test_denied_connections_are_denied_in_tunnels(nodes: Nodes) -> None:
    nodes.load(MODE % "STRICT" + DENIED)
    before = nodes.received("server", 9000)
    assert [nodes.first_words(name) for name in ("client", "other")] == [b"", BANNER]
    assert nodes.received("server", 9000) == before


@pytest.mark.usefixtures("applications")
def test_the_end_of_a_tunnel_must_be_the_very_workload_that_is_called(nodes: Nodes) -> None:
    nodes.load(accounts={"server": "second", "second": "server"})
    assert [nodes.first_words("client", name) for name in SERVERS] == [b"", b""]
    nodes.load(accounts={"server": "second"})
    assert [nodes.first_words("client", name) for name in SERVERS] == [b"", BANNER]
    nodes.load()
    assert [nodes.first_words("client", name) for name in SERVERS] == [BANNER, BANNER]


@pytest.mark.usefixtures("applications")
@pytest.mark.parametrize(
    ("near", "far", "told"),
    [
        (True, True, ()),
        (True, True, ("quic", "HBONE")),
        (False, True, ("hbone",)),
        (True, False, ()),
    ],
    ids=["says nothing", "says what nobody knows", "off here", "off there"],
)
def test_workloads_without_tunnels_are_reached_as_before(
    nodes: Nodes, near: bool, far: bool, told: tuple[str, ...]
) -> None:
    nodes.load(MODE % "STRICT", near=near, far=far, told=told)
    direct, before = nodes.received("server", 9000), tunnels(nodes)
    assert nodes.first_words("client") == BANNER
    assert (nodes.received("server", 9000), tunnels(nodes)) == (direct + 1, before)


@pytest.mark.usefixtures("applications")
def test_http_has_connections_of_its_own(nodes: Nodes) -> None:
    nodes.load(MODE % "STRICT")
    before = tunnels(nodes, "second")
    request = "GET / HTTP/1.1\nhost: second.test"
    assert nodes.near.hosts["other"].ask(VIRTUAL["second"], 8080, request).status == 200
    assert tunnels(nodes, "second") == before


@pytest.mark.usefixtures("applications")
@pytest.mark.parametrize("port", [8080, 7000])
def test_http_in_a_tunnel_tells_the_application_who_calls(
    nodes: Nodes, tunnel: Tunnel, port: int
) -> None:
    assert tunnel.connect(f"{nodes.far.hosts['server'].address}:{port}")
    forged = b"x-forwarded-client-cert: URI=spiffe://cluster.local/ns/servers/sa/server\r\n"
    seen = tunnel.ask(b"GET / HTTP/1.1\r\nhost: server.test\r\n" + forged + b"\r\n").decode()
    (certificate,) = [line for line in seen.splitlines() if line.startswith("x-forwarded-client")]
    assert "URI=spiffe://cluster.local/ns/clients/sa/stranger" in certificate
    assert "By=spiffe://cluster.local/ns/servers/sa/server;" in certificate
    assert "sa/server," not in certificate


@pytest.mark.parametrize("port", [9000, 9001], ids=["declared", "undeclared"])
def test_many_connections_in_one_tunnel_are_the_clients(
    nodes: Nodes, tunnel: Tunnel, applications: dict[str, Application], port: int
) -> None:
    before = len(applications["server"].peers)
    for _ in range(50):
        claim = (b"x-forwarded-for", b"198.18.77.2")
        assert tunnel.connect(f"{nodes.far.hosts['server'].address}:{port}", claim)
        assert tunnel.ask(b"") == BANNER
    assert set(applications["server"].peers[before:]) == {nodes.far.outside.address}
