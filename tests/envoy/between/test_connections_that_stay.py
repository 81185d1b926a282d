"""Connections that are open stay open, whatever comes and goes that does not forbid them.

Clients, server and gateway are in namespaces of their own. Of each kind of connection one is open
while objects come, and go: TCP, a WebSocket, HTTP/1.1, whose end the proxy announces in an answer,
and HTTP/2, whose end it announces by a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from meshd.model.snapshot import MeshOptions
from meshd.proxy.admin import Admin
from tests.envoy.between import http2
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.manifests import (
    ADDRESS,
    AT_80,
    HTTP,
    TCP,
    gateway,
    route,
    routes,
    server,
)
from tests.envoy.between.mesh import Mesh, answer
from tests.envoy.captured.place import eventually

BASE = (
    server(HTTP, TCP)
    + gateway("gateways", AT_80, TCP)
    + routes(
        "edge",
        "gateways",
        "*",
        f"  http: [{{{route(8080)}}}]\n  tcp: [{{match: [{{port: 9000}}], {route(9000)}}}]",
        at_gateway=True,
    )
)


def _object(kind: str, space: str, spec: str) -> str:
    group = "security" if kind in {"PeerAuthentication", "AuthorizationPolicy"} else "networking"
    head = f"---\napiVersion: {group}.istio.io/v1\nkind: {kind}\n"
    return f"{head}metadata: {{name: more, namespace: {space}}}\nspec: {spec}\n"


def _rule(space: str, policy: str) -> str:
    return _object("DestinationRule", space, f"{{host: server.test, trafficPolicy: {{{policy}}}}}")


_LIMITS = "connectionPool: {tcp: {maxConnections: 50}}"
CHANGES = {
    "VirtualService": _object(
        "VirtualService",
        "servers",
        "{hosts: [server.test], http: [{timeout: 9s, route: [{destination: {host: server.test,"
        " port: {number: 8080}}}]}], tcp: [{route: [{destination: {host: server.test,"
        " port: {number: 9000}}}]}]}",
    ),
    "DestinationRule with limits": _rule("servers", _LIMITS),
    "DestinationRule with ejection": _rule("servers", "outlierDetection: {interval: 9s}"),
    "DestinationRule with idle timeout": _rule(
        "servers", "connectionPool: {tcp: {idleTimeout: 1s}}"
    ),
    "DestinationRule by source": _rule(
        "servers", "loadBalancer: {consistentHash: {useSourceIp: true}}"
    ),
    "DestinationRule of clients": _rule("clients", _LIMITS),
    "DestinationRule of gateways": _rule("gateways", _LIMITS),
    "DestinationRule of all": _rule("istio-system", "loadBalancer: {simple: RANDOM}"),
    "ServiceEntry": _object(
        "ServiceEntry",
        "servers",
        "{hosts: [more.test], addresses: [198.19.77.2], resolution: STATIC,"
        " workloadSelector: {labels: {app: server}}, ports:"
        " [{number: 9000, name: tcp, protocol: TCP}, {number: 8080, name: http, protocol: HTTP}]}",
    ),
    "Gateway": _object(
        "Gateway",
        "gateways",
        "{selector: {role: edge}, servers:"
        " [{port: {number: 80, name: http, protocol: HTTP}, hosts: [more.test]},"
        " {port: {number: 81, name: more, protocol: HTTP}, hosts: [more.test]}]}",
    ),
    "PeerAuthentication": _object("PeerAuthentication", "servers", "{mtls: {mode: PERMISSIVE}}"),
    "AuthorizationPolicy": _object("AuthorizationPolicy", "servers", "{rules: [{}]}"),
    "AuthorizationPolicy at a gateway": _object("AuthorizationPolicy", "gateways", "{rules: [{}]}"),
    "workload": "",
    "certificates": "",
}


def load(mesh: Mesh, more: str = "", *, second: bool = False, short_way: bool) -> None:
    names = ("client", "server", *(("second",) if second else ()))
    mesh.load(
        BASE + more,
        *(mesh.workload(name) for name in names),
        mesh.workload("gateway", role="edge"),
        options=MeshOptions(short_way=short_way),
    )


@pytest.fixture(scope="module", params=[False, True], ids=["network", "short way"])
def short_way(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def mesh(short_way: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    names = ("client", "server", "second", "gateway")
    with Mesh(tmp_path_factory.mktemp("stay"), names) as made:
        load(made, short_way=short_way)
        for name in ("client", "server"):
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080,), (9000,))
    yield made
    made.close()


class Open:
    """Connections of all kinds, of a client in the mesh and of one at the gateway."""

    def __init__(self, mesh: Mesh, stack: contextlib.ExitStack) -> None:
        gateway = mesh.hosts["gateway"].address

        def to(port: int, through: str) -> socket.socket:
            if through == "gateway":
                made = mesh.outside.connect(gateway, {8080: 80}.get(port, port))
            else:
                made = mesh.hosts["client"].connect(ADDRESS, port)
            return stack.enter_context(made)

        self._echoing: dict[str, socket.socket] = {}
        self._http1: dict[str, socket.socket] = {}
        self._http2: dict[str, socket.socket] = {}
        self._streams = 0
        for through in ("mesh", "gateway"):
            self._echoing[f"TCP by the {through}"] = opened = to(9000, through)
            assert opened.recv(100) == BANNER
            self._echoing[f"WebSocket by the {through}"] = to(8080, through)
            self._upgrade(self._echoing[f"WebSocket by the {through}"])
            self._http1[f"HTTP/1.1 by the {through}"] = to(8080, through)
            self._http2[f"HTTP/2 by the {through}"] = opened = to(8080, through)
            opened.sendall(http2.PREFACE)
        assert self.ended() == {}

    @staticmethod
    def _upgrade(connection: socket.socket) -> None:
        connection.sendall(
            b"GET /socket HTTP/1.1\r\nhost: server.test\r\nconnection: upgrade\r\n"
            b"upgrade: websocket\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def ended(self) -> dict[str, str]:
        """Those that are not as they were, with what became of them."""
        found: dict[str, str] = {}
        self._streams += 1
        for name, connection in self._echoing.items():
            found[name] = _said(lambda connection=connection: _echo(connection))
        for name, connection in self._http1.items():
            found[name] = _said(lambda connection=connection: _ask(connection))
        for name, connection in self._http2.items():
            number = 2 * self._streams - 1
            found[name] = _said(lambda connection=connection, at=number: _stream(connection, at))
        return {name: said for name, said in found.items() if said}


def _said(look: Callable[[], str]) -> str:
    try:
        return look()
    except OSError as error:
        return repr(error)


def _echo(connection: socket.socket) -> str:
    connection.sendall(b"well?")
    found = connection.recv(100)
    return "" if found == b"well?" else repr(found)


def _ask(connection: socket.socket) -> str:
    found = answer(connection, "GET / HTTP/1.1\nhost: server.test")
    closing = found.headers.get("connection", "")
    return closing if found.status == 200 else str(found.status)


def _stream(connection: socket.socket, number: int) -> str:
    """Until the answer has ended, or the connection is to end."""
    asked = http2.request(b"/").removeprefix(http2.PREFACE)
    connection.sendall(asked[:5] + number.to_bytes(4, "big") + asked[9:])
    stream = connection.makefile("rb")
    while head := stream.read(9):
        kind, flags, of = head[3], head[4], int.from_bytes(head[5:9], "big")
        stream.read(int.from_bytes(head[:3], "big"))
        if kind == 7:
            return "GOAWAY"
        if kind == 3:
            return "RST_STREAM"
        if of == number and flags & 1 and kind in {0, 1}:
            return ""
    return "closed"


def settled(mesh: Mesh) -> None:
    """Until no chain and no listener waits for the end of its connections any more."""
    names = "^listener_manager.(total_filter_chains_draining|total_listeners_draining)$"

    def is_settled() -> bool:
        return not any(asyncio.run(Admin(mesh.admin).stats(names)).values())

    eventually(is_settled, "nothing is drained")


def ending(change: str, *, short_way: bool) -> set[str]:
    """What a policy ends: where connections are judged by their chain, and on the short way, which
    leads to no workload that policies are about."""
    if change == "AuthorizationPolicy" and short_way:
        return {"WebSocket by the mesh"}
    return {"TCP by the gateway"} if change == "AuthorizationPolicy at a gateway" else set()


@pytest.mark.parametrize("change", CHANGES)
def test_connections_stay_when_something_comes_and_goes(
    mesh: Mesh, short_way: bool, change: str
) -> None:
    load(mesh, short_way=short_way)
    with contextlib.ExitStack() as stack:
        connections = Open(mesh, stack)
        if change == "certificates":
            mesh.rotate()
        load(mesh, CHANGES[change], second=change == "workload", short_way=short_way)
        settled(mesh)
        ended = connections.ended()
        assert ended.keys() == ending(change, short_way=short_way), f"after it has come: {ended}"
        load(mesh, short_way=short_way)
        settled(mesh)
        assert connections.ended().keys() == ended.keys(), "after it has gone"


def test_a_rule_that_goes_takes_connections_with_it_that_it_had(
    mesh: Mesh, short_way: bool
) -> None:
    """Which a chain has that is there for the rule alone; HTTP has none."""
    load(mesh, CHANGES["DestinationRule with limits"], short_way=short_way)
    with contextlib.ExitStack() as stack:
        connections = Open(mesh, stack)
        load(mesh, short_way=short_way)
        settled(mesh)
        ended = connections.ended()
        assert ended, "the test can tell"
        assert all(name.startswith("TCP") for name in ended), ended
