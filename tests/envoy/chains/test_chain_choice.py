"""The plan's readers and a real Envoy choose the same chain for the same connection.

Meshes by chance are compiled, each to the two listeners of its scope, and servers to the listeners
of what they are sent. In these every chain ends nowhere, and the access log of the listener says
which one it was. A connection comes with the PROXY protocol, which says where it wanted to go.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import random
import socket
import ssl
import struct
import subprocess
import time
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
from google.protobuf import json_format

from meshd.compile.envoy.listeners import listener as printed
from meshd.compile.envoy.wellknown import extension, packed
from meshd.compile.explain.chain_choice import Connection, follow
from meshd.compile.gateway.gateway import workload_listeners
from meshd.compile.gateway.ports import gateway_ports
from meshd.compile.plan.chains import Chain, Owner, Refusal, Tcp
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.tls import TCP_ALPN
from meshd.compile.scope import Scope
from meshd.compile.traffic import inbound
from meshd.compile.traffic.fixed_chains import hop
from meshd.compile.traffic.scope_listeners import scope_listeners
from meshd.compile.visibility import MeshIndex
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload
from tests.envoy.chains import meshes
from tests.waiting import PATIENCE

ENVOY: Final = Path(envoy.__path__[0]) / "_bin" / "envoy"
MESHES: Final = 100
CONNECTIONS: Final = 20
"""For each of them."""
SERVERS: Final = 15
GATEWAYS: Final = 25
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
    return (*_scopes(), *_servers(), *_gateways())


def _scopes() -> Iterator[Site]:
    for number in range(MESHES):
        chance = random.Random(number)  # noqa: S311
        made = meshes.mesh(chance, f"n{number}")
        view = MeshIndex.of(made.snapshot).view(made.scope)
        direct, inspecting = scope_listeners(view, "dns", made.snapshot.options)
        yield Site(direct, (inspecting,), meshes.connection)


def _servers() -> Iterator[Site]:
    for number in range(SERVERS):
        chance = random.Random(f"server {number}")  # noqa: S311
        yield Site(of_server(chance, number), (), meshes.incoming)
        yield from (Site(one, (), meshes.incoming, "a") for one in inside(chance, number))


def _gateways() -> Iterator[Site]:
    for number in range(GATEWAYS):
        chance = random.Random(f"gateway {number}")  # noqa: S311
        snapshot = meshes.at_gateway(chance, f"g{number}")
        (uid, ports), *_ = gateway_ports(snapshot).items()
        view = MeshIndex.of(snapshot).view(Scope(f"g{number}")).as_gateway()
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


def inside(chance: random.Random, number: int) -> Iterator[Listener]:
    """Yield the listeners behind those of two workloads."""
    served = {"a": meshes.served(chance), "b": meshes.served(chance)}
    for listener in inbound.shared_listeners(served, MeshOptions()):
        yield msgspec.structs.replace(
            listener, name=f"{listener.name}@{number}", as_the_client=False
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
            ],
            clusters=[
                *(internal(listener.name) for listener in listeners),
                cluster_pb2.Cluster(name="nowhere"),
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
    (directory / "envoy.json").write_text(json_format.MessageToJson(bootstrap(directory)))
    command = [
        str(ENVOY),
        *("--config-path", str(directory / "envoy.json")),
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
    return [directory / str(number) for number, _ in enumerate(sites())]


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
            if chain != "inspect":
                chosen[int(address.rpartition(":")[2])] = (listener, chain)
        return len(chosen) == len(expected)

    eventually(all_are_logged)
    wrong = {
        client_port: (case, chosen[client_port])
        for client_port, case in expected.items()
        if chosen[client_port] != (case.listener, case.chain)
    }
    assert wrong == {}


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
