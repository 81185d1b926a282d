"""The plan's readers and a real Envoy choose the same chain for the same connection.

Meshes by chance are compiled, each to the two listeners of its scope, and servers to the listeners
of what they are sent. In these every chain ends nowhere, and the access log of the listener says
which one it was. A connection comes with the PROXY protocol, which says where it wanted to go.

Chains with several upstreams are there once more, and each upstream says its name: they get the
shares that explain tells.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import math
import os
import random
import socket
import ssl
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import envoy
import msgspec
import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2

from meshd.compile.envoy.listeners import listener as printed
from meshd.compile.envoy.wellknown import extension, packed
from meshd.compile.explain.chain_choice import Connection, follow
from meshd.compile.explain.shares import shares
from meshd.compile.gateway.gateway import workload_listeners
from meshd.compile.gateway.ports import gateway_ports
from meshd.compile.plan.chains import Answer, Chain, Owner, Refusal, Target, Tcp
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.tls import TCP_ALPN
from meshd.compile.traffic import inbound
from meshd.compile.traffic.fixed_chains import hop
from meshd.compile.traffic.scope_listeners import scope_choices, scope_listeners
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload
from tests.envoy.chains import meshes
from tests.waiting import PATIENCE

ENVOY: Final = Path(envoy.__path__[0]) / "_bin" / "envoy"
MESHES: Final = int(os.environ.get("MESHD_TEST_CHAIN_MESHES", "100"))
CONNECTIONS: Final = 20
"""For each of them."""
CHANGES: Final = 40
SERVERS: Final = 15
GATEWAYS: Final = 25
SHARED: Final = 8
"""Chains with several upstreams."""
SAMPLE: Final = 150
"""Connections to each of them."""
NO_CHAIN: Final = "-"
"""What the log says where a listener has no chain for a connection."""
NOWHERE: Final = Tcp(statistics="nowhere", upstreams=(("nowhere", 1),))
FIRST_BYTES: Final = {
    "http": b"GET / HTTP/1.1\r\n",
    "http/1.0": b"GET / HTTP/1.0\r\n",
    "other": b"\0" * 64,
}


class Site(NamedTuple):
    """A listener at which connections arrive, those behind it, and whose connections they are."""

    start: Listener
    further: tuple[Listener, ...]
    draw: Callable[[random.Random], Connection]
    workload: str = ""


class Case(NamedTuple):
    """A connection, and the listener and chain that the plan leads it to."""

    site: int
    connection: Connection
    listener: str
    chain: str


@functools.cache
def sites() -> tuple[Site, ...]:
    return (*_scopes(), *_changing_scopes(), *_servers(), *_gateways())


def _scopes() -> Iterator[Site]:
    for number in range(MESHES):
        chance = random.Random(number)  # noqa: S311
        direct, inspecting = of_scope(meshes.mesh(chance, f"n{number}"))
        yield Site(direct, (inspecting,), meshes.connection)


def _changing_scopes() -> Iterator[Site]:
    """Yield listeners of two configurations, between which a proxy changes over."""
    for number in range(CHANGES):
        chance, namespace = random.Random(f"change {number}"), f"c{number}"  # noqa: S311
        before = meshes.mesh(chance, namespace)
        after = meshes.changed(chance, before, namespace)
        direct, _ = of_scope(before)
        _, inspecting = of_scope(after)
        yield Site(direct, (inspecting,), meshes.connection)


def of_scope(mesh: meshes.Mesh) -> tuple[Listener, Listener]:
    view, options = View.of(MeshIndex.of(mesh.snapshot), mesh.scope), mesh.snapshot.options
    return scope_listeners(view.scope.name, scope_choices(view, options), "dns", options)


def _servers() -> Iterator[Site]:
    for number in range(SERVERS):
        chance = random.Random(f"server {number}")  # noqa: S311
        yield Site(of_server(chance, number), (), meshes.incoming)
        for uninspected, inspecting in inside(chance, number):
            yield Site(uninspected, (inspecting,), meshes.incoming, "a")


def _gateways() -> Iterator[Site]:
    for number in range(GATEWAYS):
        chance = random.Random(f"gateway {number}")  # noqa: S311
        snapshot = meshes.at_gateway(chance, f"g{number}")
        (uid, ports), *_ = gateway_ports(snapshot).items()
        view = View.of(MeshIndex.of(snapshot), Scope(f"g{number}")).as_gateway()
        identity = Identity("t", f"g{number}", "edge")
        for listener in workload_listeners(
            snapshot.workloads[uid], identity, ports, view, snapshot.options, lambda _: True
        ):
            inside = msgspec.structs.replace(
                listener,
                name=f"{listener.name}@{number}",
                socket=None,
                original_destination=True,
            )
            yield Site(inside, (), meshes.connection)


def of_server(chance: random.Random, number: int) -> Listener:
    """Return the inbound listener of a workload, without its socket."""
    workload = Workload(uid=f"n.{number}", name=f"{number}", namespace="n", netns="")
    policy = meshes.policy(chance)
    listener = inbound.workload_listener(
        workload, Identity("t", "n", "a"), meshes.served(chance), policy, MeshOptions()
    )
    return msgspec.structs.replace(listener, socket=None, owner=None)


def inside(chance: random.Random, number: int) -> Iterator[tuple[Listener, Listener]]:
    """Yield the listeners behind those of two workloads, those for mutual TLS and for plaintext."""
    served = {"a": meshes.served(chance), "b": meshes.served(chance)}
    made = {one.name: one for one in inbound.shared_listeners(served, MeshOptions())}
    for name in ("inbound", "inbound-plain"):
        first, behind = (renamed(made[each], number) for each in (name, f"{name}-inspected"))
        yield first, behind


def renamed(listener: Listener, number: int) -> Listener:
    """Return a listener under a name of its own, and what it hands over to another such one."""

    def changed(chain: Chain) -> Chain:
        if not (chain.hands_over and isinstance(chain.target, Tcp)):
            return chain
        ((upstream, weight),) = chain.target.upstreams
        upstreams = ((f"{upstream}@{number}", weight),)
        target = msgspec.structs.replace(chain.target, upstreams=upstreams)
        return msgspec.structs.replace(chain, target=target)

    return msgspec.structs.replace(
        listener,
        name=f"{listener.name}@{number}",
        as_the_client=False,
        chains=tuple(map(changed, listener.chains)),
    )


def all_cases() -> Iterator[Case]:
    for number, site in enumerate(sites()):
        chance = random.Random(f"connections {number}")  # noqa: S311
        for _ in range(CONNECTIONS):
            drawn = site.draw(chance)
            connection = msgspec.structs.replace(drawn, workload=site.workload)
            chosen = [*follow(site.start, site.further, connection)]
            if chosen:
                yield Case(number, connection, chosen[-1].listener.name, chosen[-1].chain.name)
            else:
                yield Case(number, connection, site.start.name, NO_CHAIN)


def without_targets(listener: Listener) -> Listener:
    """Return a listener of which all chains end nowhere, but those that refuse or go on inside."""

    def changed(chain: Chain) -> Chain:
        if chain.hands_over or isinstance(chain.target, Refusal):
            return chain
        return msgspec.structs.replace(chain, target=NOWHERE, tls=None, notes_peer=False)

    return msgspec.structs.replace(
        listener,
        chains=tuple(map(changed, listener.chains)),
        default=listener.default and changed(listener.default),
    )


def logged(listener: Listener, log: Path) -> Any:
    """Return its message, with a log of which connection got which chain."""
    made = printed(without_targets(listener))
    line = f"%DOWNSTREAM_REMOTE_ADDRESS% {listener.name} %FILTER_CHAIN_NAME%\n"
    text = substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source={"inline_string": line}
    )
    config = packed(file_pb2.FileAccessLog(path=str(log), log_format=text))
    made.access_log.add(name="envoy.access_loggers.file", typed_config=config)
    return made


def front(number: int, site: Site, path: Path) -> Any:
    """Return the listener of the PROXY protocol before a site."""
    owner = Owner(site.workload, "") if site.workload else None
    target = hop("front", site.start.name)
    chain = Chain(name="front", hands_over=True, owner=owner, target=target)
    made = printed(Listener(name=f"front {number}", chains=(chain,)))
    made.ClearField("internal_listener")
    made.address.pipe.path = str(path)
    made.listener_filters.append(
        listener_components_pb2.ListenerFilter(
            name="envoy.filters.listener.proxy_protocol",
            typed_config=packed(proxy_protocol_pb2.ProxyProtocol()),
        )
    )
    return made


def shared_targets() -> list[Tcp]:
    """Return the targets of chains with several upstreams."""
    found = [
        chain.target
        for site in sites()
        for listener in (site.start, *site.further)
        for chain in listener.chains
        if isinstance(chain.target, Tcp) and len(chain.target.upstreams) > 1
    ]
    return [msgspec.structs.replace(target, lookup_port=0) for target in dict.fromkeys(found)][
        :SHARED
    ]


def at_pipe(path: Path, target: Target) -> Any:
    """Return a listener that does one thing with all connections."""
    made = printed(Listener(name=path.name, chains=(Chain(name="all", target=target),)))
    made.ClearField("internal_listener")
    made.address.pipe.path = str(path)
    return made


def at_end(name: str, path: Path) -> Any:
    """Return the cluster of an upstream that says its name."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}]
    return cluster_pb2.Cluster(
        name=name, load_assignment={"cluster_name": name, "endpoints": endpoints}
    )


def internal(name: str) -> Any:
    raw = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": packed(raw_buffer_pb2.RawBuffer()),
    }
    inside = internal_upstream_pb2.InternalUpstreamTransport(transport_socket=raw)
    address = {"envoy_internal_address": {"server_listener_name": name}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return cluster_pb2.Cluster(
        name=name,
        load_assignment={"cluster_name": name, "endpoints": endpoints},
        transport_socket={
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": packed(inside),
        },
    )


def bootstrap(directory: Path) -> Any:
    listeners = [listener for site in sites() for listener in (site.start, *site.further)]
    shared = shared_targets()
    names = sorted({name for target in shared for name, _ in target.upstreams})
    ends = {name: directory / f"end {number}" for number, name in enumerate(names)}
    return bootstrap_pb2.Bootstrap(
        node={"id": "chains", "cluster": "chains"},
        bootstrap_extensions=[
            extension("envoy.bootstrap.internal_listener", internal_listener_pb2.InternalListener())
        ],
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[
                *(
                    front(number, site, directory / str(number))
                    for number, site in enumerate(sites())
                ),
                *(logged(listener, directory / "log") for listener in listeners),
                *(
                    at_pipe(directory / f"shared {number}", target)
                    for number, target in enumerate(shared)
                ),
                *(at_pipe(path, Answer(name)) for name, path in ends.items()),
            ],
            clusters=[
                *(internal(listener.name) for listener in listeners),
                cluster_pb2.Cluster(name="nowhere"),
                *(at_end(name, path) for name, path in ends.items()),
            ],
        ),
    )


@functools.cache
def hello(server_name: str, protocols: tuple[str, ...]) -> bytes:
    """Return how a client of TLS begins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(protocols)
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=server_name or None)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def announced(client_port: int, connection: Connection) -> bytes:
    """Return the header of the PROXY protocol, version 2."""
    wanted = ipaddress.ip_address(connection.address)
    client = ipaddress.ip_address("fd00:198::9" if wanted.version == 6 else "198.18.0.9")
    ports = struct.pack("!HH", client_port, connection.port)
    body = client.packed + wanted.packed + ports
    family = 0x11 if wanted.version == 4 else 0x21
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + bytes([family]) + struct.pack("!H", len(body)) + body


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("chains")
    (directory / "envoy.pb").write_bytes(bootstrap(directory).SerializeToString())
    command = [
        str(ENVOY),
        *("--config-path", str(directory / "envoy.pb")),
        *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
        *("--file-flush-interval-msec", "20"),
    ]
    with (directory / "envoy.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        eventually(
            lambda: process.poll() is not None or all(takes(path) for path in fronts(directory))
        )
        assert process.poll() is None, (directory / "envoy.log").read_text()
        yield directory
    finally:
        process.kill()
        process.wait(PATIENCE)


def fronts(directory: Path) -> list[Path]:
    return [
        *(directory / str(number) for number, _ in enumerate(sites())),
        *(directory / f"shared {number}" for number, _ in enumerate(shared_targets())),
    ]


def takes(path: Path) -> bool:
    """Return whether connections are accepted there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def send(directory: Path, client_port: int, case: Case) -> None:
    """Open a connection, and wait until the proxy ends it."""
    connection = case.connection
    protocols = TCP_ALPN if connection.offers_mesh_tls else ("h2",)
    first = FIRST_BYTES.get(connection.begins_as) or hello(connection.server_name, protocols)
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionResetError):
        client.settimeout(PATIENCE)
        client.connect(str(directory / str(case.site)))
        client.sendall(announced(client_port, connection) + first)
        while client.recv(4096):
            """Nothing answers."""


def test_explain_and_the_proxy_choose_the_same_chain(directory: Path) -> None:
    expected = dict(enumerate(all_cases(), start=1024))
    for client_port, case in expected.items():
        send(directory, client_port, case)
    chosen: dict[int, tuple[str, str]] = {}

    def all_are_logged() -> bool:
        for line in (directory / "log").read_text().splitlines():
            address, listener, chain = line.split()
            if chain not in {"inspect", "back"}:
                chosen[int(address.rpartition(":")[2])] = (listener, chain)
        return len(chosen) == len(expected)

    eventually(all_are_logged)
    wrong = {
        client_port: (case, chosen[client_port])
        for client_port, case in expected.items()
        if chosen[client_port] != (case.listener, case.chain)
    }
    assert wrong == {}


def test_upstreams_get_the_shares_of_connections_that_explain_tells(directory: Path) -> None:
    for number, target in enumerate(shared_targets()):
        got = Counter(reached(directory / f"shared {number}") for _ in range(SAMPLE))
        told = shares(target.upstreams)
        assert set(got) <= {name for name, share in told.items() if share}, target
        for name, share in told.items():
            assert is_likely(got[name], share / 100), (target, got)


def reached(path: Path) -> str:
    """Return the name of the upstream that a connection comes to."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile() as answer:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        return answer.read()


def is_likely(count: int, share: float) -> bool:
    """Return whether so many of all would differ as much in one of 10¹² tests, by chance."""
    by_count = [
        math.comb(SAMPLE, each) * share**each * (1 - share) ** (SAMPLE - each)
        for each in range(SAMPLE + 1)
    ]
    return min(sum(by_count[: count + 1]), sum(by_count[count:])) > 1e-12


def test_all_kinds_of_chains_are_chosen() -> None:
    kinds = {
        (case.listener.partition("@")[0], case.chain.partition("|")[0]) for case in all_cases()
    }
    direct = {"http", "outbound", "rest", "refused", "loop", "dns"}
    inspected = {"http", "sniffed", "outbound", "rest", "refused"}
    assert kinds >= {("outbound", kind) for kind in direct}
    assert kinds >= {("outbound-inspected", kind) for kind in inspected}
    entered = {case.chain for case in all_cases() if "|inbound" in case.listener}
    assert entered == {"mtls", "plain", "mtls-inspected", "plain-inspected", "refused"}
