# pyright: reportAttributeAccessIssue=false
"""A workload's incoming connections: mutual TLS taken off, and handed to the application's port.

As on the way out there is a thin listener in the namespace and an internal one that is shared. The
thin one decides what is accepted, takes the TLS off and notes who the peer was; the internal one
knows what is spoken on which port. Workloads that serve the same ports share it.

The application sees the client's own address as its peer's: the connection to it is opened from
inside its namespace with the client's source address (``original_src``), and capture's rules bring
the replies back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from meshd.compile import wellknown
from meshd.compile.http import server_manager
from meshd.compile.internal import handover, internal_cluster
from meshd.compile.listeners import (
    REFUSED,
    chain,
    chain_match,
    in_namespace,
    loop_trap,
    own_traps,
    refused,
)
from meshd.compile.matching import by_mesh_tls, by_port, to_chain
from meshd.compile.names import InboundCluster
from meshd.compile.peer_authentication import Mode, PeerPolicy
from meshd.compile.tcp import tcp_proxy
from meshd.compile.tls import HTTP_ALPN, TCP_ALPN, mesh_server
from meshd.compile.traffic_policy import Policy, circuit_breakers
from meshd.compile.wellknown import TRANSITIVE, packed, seconds, state_value
from meshd.model.interception import INBOUND_PORT, PROXY_INBOUND_MARK
from meshd.model.service import Protocol
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload

_UNDECLARED: Final = "InboundPassthroughCluster"

_MUTUAL: Final = "mtls"
_PLAIN: Final = "plain"

_LONGEST_SHAPE: Final = 48
_HELLO_TIMEOUT: Final = 2.0
"""Seconds in which a client of the mesh has to begin its handshake, or else it is taken for a plain
one and its connection is lost. Its proxy may have other things to do than to go on at once, so this
is much longer than clients that wait for the server's first words would like."""

Ports = Mapping[int, Protocol]
"""What a workload serves, and what is spoken there."""


def served_ports(snapshot: Snapshot) -> dict[str, dict[int, Protocol]]:
    """For each workload, by uid: the ports that services send to, and what is spoken there."""
    found: dict[str, dict[int, Protocol]] = {}
    for service in snapshot.services.values():
        spoken = {port.number: port.protocol for port in service.ports}
        for endpoint in service.endpoints:
            if endpoint.workload and spoken.get(endpoint.service_port) is not Protocol.UDP:
                ports = found.setdefault(endpoint.workload, {})
                ports.setdefault(endpoint.port, spoken[endpoint.service_port])
    return found


def inbound_clusters(ports: frozenset[int]) -> Iterator[Any]:
    """One for each port number, whoever serves it, and one for ports that no service declares."""
    for port in sorted(ports):
        yield _to_application(str(InboundCluster(port)))
    yield _to_application(_UNDECLARED)


def _to_application(name: str) -> Any:
    """To where the client wanted to go, from inside the namespace, in the client's protocol."""
    options = http_protocol_options_pb2.HttpProtocolOptions
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=seconds(10),
        circuit_breakers=circuit_breakers(Policy()),
        upstream_bind_config=wellknown.from_namespace(PROXY_INBOUND_MARK),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(
                options(use_downstream_protocol_config=options.UseDownstreamHttpConfig())
            )
        },
    )


def shape_name(ports: Ports) -> str:
    """Equal for workloads that serve the same."""
    text = ",".join(f"{protocol}:{port}" for port, protocol in sorted(ports.items()))
    if len(text) <= _LONGEST_SHAPE:
        return text or "undeclared"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def listener_for(ports: Ports, *, mutual_tls: bool) -> str:
    """Name of the internal listener behind the thin ones, and of the cluster that leads there."""
    return f"inbound{'' if mutual_tls else '-plain'}@{shape_name(ports)}"


def workload_listener(
    workload: Workload, identity: Identity, ports: Ports, policy: PeerPolicy, options: MeshOptions
) -> Any:
    """Takes what the namespace's rules redirect to port 15006.

    A connection that begins like the mesh's mutual TLS is taken as such, wherever that is
    allowed; anything else is plain, and goes on only where that is.
    """
    traps = own_traps(workload, INBOUND_PORT)
    ways = {port: _way(mode) for port, mode in sorted(policy.port_modes.items())} | traps
    way = by_port(ways, _way(policy.mode)) if ways else _way(policy.mode)
    modes = {policy.mode, *policy.port_modes.values()}
    return in_namespace(
        workload,
        "inbound",
        INBOUND_PORT,
        options,
        listener_filters=[
            wellknown.original_destination(),
            wellknown.state_on_accept(*wellknown.whose(workload, TRANSITIVE), *handover()),
            wellknown.inspect_tls(),
        ],
        listener_filters_timeout=seconds(max(_HELLO_TIMEOUT, options.protocol_detection_timeout)),
        continue_on_listener_filters_timeout=True,
        filter_chain_matcher=way.matcher if way.HasField("matcher") else None,
        filter_chains=[
            *_chains(identity, ports, modes),
            *([refused()] if traps or Mode.STRICT in modes else []),
        ],
    )


def _way(mode: Mode) -> Any:
    """To where a connection goes."""
    match mode:
        case Mode.DISABLE:
            return to_chain(_PLAIN)
        case Mode.PERMISSIVE:
            return by_mesh_tls(to_chain(_MUTUAL), to_chain(_PLAIN))
        case Mode.STRICT:
            return by_mesh_tls(to_chain(_MUTUAL), to_chain(REFUSED))


def _chains(identity: Identity, ports: Ports, modes: set[Mode]) -> Iterator[Any]:
    """Those that any of these modes leads to, for they take memory."""
    if modes - {Mode.DISABLE}:
        yield chain(
            _MUTUAL,
            None,
            [
                wellknown.set_filter_state(after_handshake=tuple(_peer(identity))),
                tcp_proxy(
                    "inbound", [(listener_for(ports, mutual_tls=True), 1)], after_handshake=True
                ),
            ],
            transport_socket=mesh_server(identity, (*HTTP_ALPN, *TCP_ALPN)),
        )
    if modes - {Mode.STRICT}:
        yield chain(
            _PLAIN, None, [tcp_proxy("inbound", [(listener_for(ports, mutual_tls=False), 1)])]
        )


def _peer(identity: Identity) -> Iterator[Any]:
    """Who called, known once the handshake is done."""
    yield state_value(wellknown.PEER_STATE, "%DOWNSTREAM_PEER_URI_SAN%", TRANSITIVE)
    yield state_value(
        wellknown.CLIENT_CERTIFICATE_STATE,
        f"By={identity.uri};Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;"
        'Subject="%DOWNSTREAM_PEER_SUBJECT%";URI=%DOWNSTREAM_PEER_URI_SAN%',
        TRANSITIVE,
    )


def shape_clusters(ports: Ports) -> Iterator[Any]:
    """The ways from the thin listeners to the internal ones."""
    for mutual in (True, False):
        name = listener_for(ports, mutual_tls=mutual)
        yield internal_cluster(name, name)


def shape_listeners(ports: Ports, options: MeshOptions) -> Iterator[Any]:
    """The internal listeners behind the thin ones of workloads that serve these ports."""
    sniffed = frozenset(port for port, spoken in ports.items() if spoken is Protocol.SNIFFED)
    for mutual in (True, False):
        yield listener_pb2.Listener(
            name=listener_for(ports, mutual_tls=mutual),
            stat_prefix="inbound_shared",
            internal_listener=listener_pb2.Listener.InternalListenerConfig(),
            listener_filters=[
                wellknown.original_destination(),
                _as_the_client(),
                *([wellknown.inspect_http(sniffed)] if sniffed else []),
            ],
            listener_filters_timeout=seconds(options.protocol_detection_timeout),
            continue_on_listener_filters_timeout=True,
            filter_chains=[loop_trap(INBOUND_PORT), *_port_chains(ports, options, mutual)],
            default_filter_chain=chain(
                "undeclared", None, [tcp_proxy(_UNDECLARED, [(_UNDECLARED, 1)], options)]
            ),
        )


def _port_chains(ports: Ports, options: MeshOptions, mutual_tls: bool) -> Iterator[Any]:
    for port, protocol in sorted(ports.items()):
        cluster = str(InboundCluster(port))
        opaque = [tcp_proxy(cluster, [(cluster, 1)], options)]
        http = [server_manager(port, cluster, options, mutual_tls=mutual_tls)]
        usual = http if protocol.is_http else opaque
        yield chain(str(port), chain_match(port=port), usual)
        if protocol is Protocol.SNIFFED:
            match = chain_match(port=port, alpn=wellknown.HTTP_FIRST_LINE)
            yield chain(f"{port}|http", match, http)


def _as_the_client() -> Any:
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_src",
        typed_config=packed(original_src_pb2.OriginalSrc(mark=PROXY_INBOUND_MARK)),
    )
