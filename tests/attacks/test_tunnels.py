"""Tunnels lead to the workload that takes them, in the name of who opened them, and nowhere else.

The attacker is on the network of the nodes. It has no certificate, one of another mesh, or that of
a workload that it runs.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator

import pytest

from meshd.model.interception import UNTUNNELED_PORTS
from tests.envoy.between import http2
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.mesh import Mesh
from tests.envoy.between.tunnels import MODE, Nodes, Tunnel, certified, two_nodes
from tests.envoy.captured.place import eventually


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        made.load(MODE % "STRICT")
        yield made


@pytest.fixture(scope="module")
def application(nodes: Nodes) -> Iterator[Application]:
    """Also on ports of proxies, where it would be found."""
    ports = (9000, 15020, 15021, 15090)
    made = Application(nodes.far.hosts["server"].netns, (8080,), ports)
    other = Application(nodes.far.hosts["second"].netns, (), (9000,))
    yield made
    made.close()
    other.close()


@pytest.fixture
def ask(nodes: Nodes, application: Application) -> Iterator[Callable[..., bool]]:
    """Whether a tunnel leads anywhere. None that is asked for reaches the application, and others
    go on."""
    assert is_taken(nodes, certified(nodes.near, "mallory"))
    application.peers.clear()

    def asked(authority: str, *headers: http2.Header, method: bytes = b"CONNECT") -> bool:
        with contextlib.closing(opened(nodes)) as tunnel:
            return tunnel.connect(authority, *headers, method=method)

    yield asked
    assert application.peers == []
    assert is_taken(nodes, certified(nodes.near, "mallory"))


def address(nodes: Nodes, name: str = "server") -> str:
    return nodes.far.hosts[name].address


def opened(nodes: Nodes, context: ssl.SSLContext | None = None) -> Tunnel:
    return Tunnel.to(nodes.far, address(nodes), context or certified(nodes.near, "mallory"))


def test_a_tunnel_leads_to_no_other_address(nodes: Nodes, ask: Callable[..., bool]) -> None:
    own = address(nodes)
    for authority in (
        f"{address(nodes, 'second')}:9000",
        f"{nodes.far.outside.address}:9000",
        "127.0.0.1:9000",
        "0.0.0.0:9000",
        "[::1]:9000",
        f"[::ffff:{own}]:9000",
        f"::ffff:{own}:9000",
        "localhost:9000",
        "server.test:9000",
        "server:9000",
        f"{own}.:9000",
        f"{own}.example.org:9000",
        f"0{own}:9000",
        f"{own}@{address(nodes, 'second')}:9000",
        f"{own}:9000@{address(nodes, 'second')}:9000",
        f"{own}:9000,{address(nodes, 'second')}:9000",
        f"{own}:9000/",
        f"http://{own}:9000",
        own,
        f"{own}:",
        ":9000",
        "9000",
        "",
    ):
        assert not ask(authority), authority


def test_a_tunnel_leads_to_no_port_of_a_proxy(nodes: Nodes, ask: Callable[..., bool]) -> None:
    for port in sorted(UNTUNNELED_PORTS):
        assert not ask(f"{address(nodes)}:{port}"), port


def test_invalid_ports_are_refused(nodes: Nodes, ask: Callable[..., bool]) -> None:
    for port in (
        "0",
        "00",
        "09000",
        "+9000",
        "-1",
        "65536",
        "99999",
        "9000 ",
        "0x2328",
        "9e3",
        "\uff19\uff10\uff10\uff10",
    ):
        assert not ask(f"{address(nodes)}:{port}"), port


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        (b"GET", ((b":scheme", b"http"), (b":path", b"/"))),
        (b"POST", ((b":scheme", b"http"), (b":path", b"/"))),
        (
            b"CONNECT",
            ((b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/")),
        ),
        (
            b"CONNECT",
            ((b":protocol", b"connect-udp"), (b":scheme", b"https"), (b":path", b"/")),
        ),
    ],
)
def test_only_connections_are_asked_for(
    nodes: Nodes, ask: Callable[..., bool], method: bytes, headers: tuple[http2.Header, ...]
) -> None:
    assert not ask(f"{address(nodes)}:9000", *headers, method=method)


def test_headers_lead_nowhere_else(nodes: Nodes, application: Application) -> None:
    other = address(nodes, "second").encode()
    for name, value in (
        (b"x-envoy-original-dst-host", other + b":9000"),
        (b"host", other + b":9000"),
        (b"x-forwarded-host", other + b":9000"),
        (b"x-forwarded-for", other),
        (b"forwarded", b"for=" + other),
        (b"x-envoy-external-address", other),
        (b"baggage", b"k8s.namespace.name=back,service.name=server"),
    ):
        tunnel, before = opened(nodes), len(application.peers)
        if tunnel.connect(f"{address(nodes)}:9000", (name, value)):
            assert tunnel.ask(b"") == BANNER
        tunnel.close()
        assert set(application.peers[before:]) <= {nodes.far.outside.address}


def test_endless_headers_end_a_tunnel_and_no_other(nodes: Nodes, application: Application) -> None:
    assert application
    other, tunnel = opened(nodes), opened(nodes)
    assert other.connect(f"{address(nodes)}:9000")
    large = tuple((b"x-%d" % number, b"x" * 8000) for number in range(20))
    assert not tunnel.connect(f"{address(nodes)}:9000", *large)
    assert other.ask(b"") == BANNER
    tunnel.close()
    other.close()


def test_connections_in_tunnels_are_bounded_as_others_are(
    nodes: Nodes, application: Application
) -> None:
    nodes.load(MODE % "STRICT", connections=10)
    before = len(application.peers)
    with contextlib.ExitStack() as open_now:
        tunnels = [open_now.enter_context(contextlib.closing(opened(nodes))) for _ in range(4)]
        for tunnel in tunnels:
            tunnel.begin(f"{address(nodes)}:9000", 500)
        # Some wait for a place, as many as there are, and are answered when there is one.
        assert [len(tunnel.answers(450)) for tunnel in tunnels] == [450] * len(tunnels)
        eventually(lambda: len(application.peers) - before >= 20, "as many are open as may be")
        # Of each tunnel, one connection is beyond the limit: Envoy lets every pool have one.
        assert len(application.peers) - before <= 20 + len(tunnels)
        other = Tunnel.to(nodes.far, address(nodes, "second"), certified(nodes.near, "mallory"))
        open_now.enter_context(contextlib.closing(other))
        assert other.connect(f"{address(nodes, 'second')}:9000")
    eventually(lambda: is_taken(nodes, certified(nodes.near, "mallory")), "there is room again")
    nodes.load(MODE % "STRICT")


def test_a_flood_of_requests_for_connections_is_refused_above_the_workloads_rate(
    nodes: Nodes, application: Application
) -> None:
    """In whichever tunnels, and no other workload suffers from it."""
    nodes.load(MODE % "STRICT", rate=1)
    before = len(application.peers)
    with contextlib.ExitStack() as open_now:
        tunnels = [open_now.enter_context(contextlib.closing(opened(nodes))) for _ in range(4)]
        for tunnel in tunnels:
            tunnel.begin(f"{address(nodes)}:9000", 450)
        answers = [answer for tunnel in tunnels for answer in tunnel.answers(450)]
        assert len(answers) == 1800
        assert 4 <= sum(answers) < 900
        assert len(application.peers) - before <= sum(answers)
        other = Tunnel.to(nodes.far, address(nodes, "second"), certified(nodes.near, "mallory"))
        open_now.enter_context(contextlib.closing(other))
        assert other.connect(f"{address(nodes, 'second')}:9000")
    nodes.load(MODE % "STRICT")


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE", "DISABLE"])
def test_nobody_opens_a_tunnel_without_a_certificate_of_the_mesh(
    nodes: Nodes, application: Application, tmp_path_factory: pytest.TempPathFactory, mode: str
) -> None:
    nodes.load(MODE % mode)
    foreign = Mesh(tmp_path_factory.mktemp("foreign"), ()).holder("client")
    foreign.set_alpn_protocols(["h2"])
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    nobody.set_alpn_protocols(["h2"])
    before = len(application.peers)
    try:
        for context in (foreign, nobody):
            assert not is_taken(nodes, context)
        plain = Tunnel.to(nodes.far, address(nodes), None)
        assert not plain.connect(f"{address(nodes)}:9000")
        plain.close()
        assert is_taken(nodes, certified(nodes.near, "mallory"))
    finally:
        nodes.load(MODE % "STRICT")
    assert len(application.peers) == before + 1


def is_taken(nodes: Nodes, context: ssl.SSLContext) -> bool:
    """Whether a tunnel is, and a connection in it."""
    try:
        tunnel = opened(nodes, context)
    except (ssl.SSLError, ConnectionError):
        return False
    try:
        return tunnel.connect(f"{address(nodes)}:9000") and tunnel.ask(b"") == BANNER
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        tunnel.close()


def test_no_other_name_for_the_protocol_opens_one(nodes: Nodes) -> None:
    """HTTP/1.1 has CONNECT, too."""
    for protocols in (["http/1.1"], ["istio"], ["istio-peer-exchange", "istio"]):
        context = nodes.near.holder("mallory")
        context.set_alpn_protocols(protocols)
        with (
            nodes.far.outside.connect(address(nodes), 15008) as raw,
            context.wrap_socket(raw) as connection,
        ):
            to = f"{address(nodes)}:9000"
            connection.sendall(f"CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n".encode())
            assert b"200" not in connection.recv(4096)
