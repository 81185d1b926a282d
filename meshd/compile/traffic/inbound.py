"""A workload's incoming connections: mutual TLS taken off, and handed to the application's port.

As on the way out there is a thin listener in the namespace, and internal ones that all workloads
share. The thin one decides what is accepted, takes the TLS off and notes who the peer was; the
internal ones know what is spoken on which port of which workload.

The application sees the client's own address as its peer's: the connection to it is opened from
inside its namespace with the client's source address (``original_src``), and capture's rules bring
the replies back.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from xds.type.matcher.v3 import matcher_pb2

from meshd.compile.envoy import limits, wellknown
from meshd.compile.envoy.internal import handover, internal_cluster
from meshd.compile.envoy.listeners import (
    LOOP,
    REFUSED,
    chain,
    in_namespace,
    loop_trap,
    own_traps,
    refused,
)
from meshd.compile.envoy.matching import (
    Way,
    always,
    by_http,
    by_mesh_tls,
    by_port,
    by_workload,
    to_chain,
)
from meshd.compile.envoy.wellknown import TRANSITIVE, StateValue, packed, seconds, state_value
from meshd.compile.http.connection import server_manager
from meshd.compile.http.inbound_routes import certified_routes
from meshd.compile.names import InboundCluster
from meshd.compile.policy import mutual_tls_timeout
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic.tcp import tcp_proxy
from meshd.compile.upstream.tls import HTTP_ALPN, TCP_ALPN, mesh_server
from meshd.compile.upstream.traffic_policy import Policy, circuit_breakers
from meshd.model.interception import INBOUND_PORT, PROXY_INBOUND_MARK
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload

_Chains = dict[str, listener_components_pb2.FilterChain]
"""By name."""
_UNDECLARED: Final = "InboundPassthroughCluster"


class Entry(NamedTuple):
    """What the thin listener has decided of a connection."""

    mutual_tls: bool
    inspected: bool
    """What is spoken is found out from its first bytes."""

    @property
    def chain(self) -> str:
        return ("mtls" if self.mutual_tls else "plain") + ("-inspected" if self.inspected else "")

    @property
    def listener(self) -> str:
        """Name of the internal listener behind the thin ones, and of the cluster that leads there.
        All workloads of the node share it, so that no thin listener knows which ports there are."""
        plain = "" if self.mutual_tls else "-plain"
        return f"inbound{plain}{'-inspected' if self.inspected else ''}"


ENTRIES: Final = tuple(itertools.starmap(Entry, itertools.product((True, False), repeat=2)))


def inbound_clusters(
    served: Iterable[Ports], options: MeshOptions
) -> Iterator[cluster_pb2.Cluster]:
    """One for each port number and version of HTTP, whoever serves it, and one for ports that no
    service declares; and the ways from the thin listeners to the internal ones."""
    pairs = {(port, spoken) for ports in served for port, spoken in ports.items()}
    clusters = {InboundCluster(port, _VARIANTS[spoken]) for port, spoken in pairs}
    clusters |= {InboundCluster(port) for port, spoken in pairs if spoken is Spoken.SNIFFED}
    for cluster in sorted(clusters, key=str):
        yield _to_application(str(cluster), _HTTP_OPTIONS[cluster.variant], options)
    yield _to_application(_UNDECLARED, None, options)
    for entry in ENTRIES:
        yield internal_cluster(entry.listener, entry.listener)


_VARIANTS: Final = {
    Spoken.HTTP: "",
    Spoken.OPAQUE: "",
    Spoken.HTTP2: "http2",
    Spoken.EITHER: "either",
    Spoken.SNIFFED: "either",
}
_OPTIONS: Final = http_protocol_options_pb2.HttpProtocolOptions
_HTTP_OPTIONS: Final = {
    "": None,
    "http2": _OPTIONS(
        explicit_http_config=_OPTIONS.ExplicitHttpConfig(http2_protocol_options=limits.http2())
    ),
    "either": _OPTIONS(
        use_downstream_protocol_config=_OPTIONS.UseDownstreamHttpConfig(
            http2_protocol_options=limits.http2()
        )
    ),
}


def _to_application(
    name: str, http: http_protocol_options_pb2.HttpProtocolOptions | None, mesh: MeshOptions
) -> cluster_pb2.Cluster:
    """To where the client wanted to go, from inside the namespace."""
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=seconds(10),
        circuit_breakers=circuit_breakers(Policy(), mesh),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        upstream_bind_config=wellknown.from_namespace(PROXY_INBOUND_MARK),
        typed_extension_protocol_options={_OPTIONS.DESCRIPTOR.full_name: packed(http)}
        if http
        else {},
    )


def inbound_routes(
    served: Iterable[Ports], accounts: Iterable[tuple[str, str]], options: MeshOptions
) -> Iterator[route_pb2.RouteConfiguration]:
    """For the requests that come over mutual TLS. ``accounts``: those of gateways."""
    gateways = [Identity(options.trust_domain, *account) for account in accounts]
    clusters = {
        InboundCluster(port, _VARIANTS[spoken])
        for ports in served
        for port, spoken in ports.items()
        if spoken is not Spoken.OPAQUE
    }
    for cluster in sorted(clusters, key=str):
        yield certified_routes(cluster, gateways)


def workload_listener(
    workload: Workload, identity: Identity, ports: Ports, policy: PeerPolicy, options: MeshOptions
) -> listener_pb2.Listener:
    """Takes what the namespace's rules redirect to port 15006.

    A connection that begins like the mesh's mutual TLS is taken as such, wherever that is
    allowed; anything else is plain, and goes on only where that is. Chains and the matcher alone
    depend on what is served.
    """
    traps = own_traps(workload, INBOUND_PORT)
    inspected = frozenset(port for port, spoken in ports.items() if spoken is Spoken.SNIFFED)
    ways = {
        port: _way(policy.mode_of(port), inspected=port in inspected)
        for port in sorted({*policy.port_modes, *inspected})
    } | traps
    otherwise = _way(policy.mode, inspected=False)
    way = by_port(ways, otherwise) if ways else otherwise
    modes = {policy.mode, *policy.port_modes.values()}
    return in_namespace(
        workload,
        "inbound",
        INBOUND_PORT,
        options,
        listener_pb2.Listener(
            listener_filters=[
                wellknown.original_destination(),
                wellknown.state_on_accept(*wellknown.whose(workload, TRANSITIVE), *handover()),
                wellknown.inspect_tls(),
            ],
            # The proxy of a client may have other things to do than to go on at once, so this is
            # longer than clients that wait for the server's first words would like.
            listener_filters_timeout=seconds(mutual_tls_timeout.timeout(workload, options)),
            continue_on_listener_filters_timeout=True,
            filter_chain_matcher=_matcher(way),
            filter_chains=[
                *_chains(identity, modes, inspected=bool(inspected)),
                *([refused()] if traps or Mode.STRICT in modes else []),
            ],
        ),
    )


def _matcher(way: Way) -> matcher_pb2.Matcher:
    """There is one even where nothing is asked, for with and without are listeners of two kinds."""
    return way.matcher if way.HasField("matcher") else always(way)


def _way(mode: Mode, *, inspected: bool) -> Way:
    """To where a connection goes."""
    plain = to_chain(Entry(mutual_tls=False, inspected=inspected).chain)
    mutual = to_chain(Entry(mutual_tls=True, inspected=inspected).chain)
    match mode:
        case Mode.DISABLE:
            return plain
        case Mode.PERMISSIVE:
            return by_mesh_tls(mutual, plain)
        case Mode.STRICT:
            return by_mesh_tls(mutual, to_chain(REFUSED))


def _chains(
    identity: Identity, modes: set[Mode], *, inspected: bool
) -> Iterator[listener_components_pb2.FilterChain]:
    """Those that any of these modes leads to, for they take memory."""
    for entry in ENTRIES:
        if entry.inspected and not inspected:
            continue
        if entry.mutual_tls and modes - {Mode.DISABLE}:
            yield chain(
                entry.chain,
                None,
                [
                    wellknown.set_filter_state(after_handshake=tuple(_peer(identity))),
                    tcp_proxy("inbound", [(entry.listener, 1)], after_handshake=True),
                ],
                transport_socket=mesh_server(identity, (*HTTP_ALPN, *TCP_ALPN)),
            )
        if not entry.mutual_tls and modes - {Mode.STRICT}:
            yield chain(entry.chain, None, [tcp_proxy("inbound", [(entry.listener, 1)])])


def _peer(identity: Identity) -> Iterator[StateValue]:
    """Who called, known once the handshake is done."""
    yield state_value(wellknown.PEER_STATE, "%DOWNSTREAM_PEER_URI_SAN%", TRANSITIVE)
    yield state_value(
        wellknown.CLIENT_CERTIFICATE_STATE,
        f"By={identity.uri};Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;"
        'Subject="%DOWNSTREAM_PEER_SUBJECT%";URI=%DOWNSTREAM_PEER_URI_SAN%',
        TRANSITIVE,
    )


def shared_listeners(
    served: Mapping[str, Ports], options: MeshOptions
) -> Iterator[listener_pb2.Listener]:
    """The internal listeners behind the thin ones of the workloads that serve these ports, by
    uid."""
    for entry in ENTRIES:
        chains: _Chains = {}
        ways = (_inspected_ways if entry.inspected else _known_ways)(served, entry, options, chains)
        inspectors = [wellknown.inspect_http()] if entry.inspected else []
        yield listener_pb2.Listener(
            name=entry.listener,
            stat_prefix="inbound_shared",
            internal_listener=listener_pb2.Listener.InternalListenerConfig(),
            listener_filters=[
                wellknown.original_destination(),
                _as_the_client(),
                *inspectors,
            ],
            listener_filters_timeout=seconds(options.protocol_detection_timeout),
            continue_on_listener_filters_timeout=True,
            per_connection_buffer_limit_bytes=limits.connection_buffer(),
            filter_chain_matcher=by_port({**ways, INBOUND_PORT: to_chain(LOOP)}).matcher,
            filter_chains=[loop_trap(), *(chains[name] for name in sorted(chains))],
            default_filter_chain=chain(
                "undeclared", None, [tcp_proxy(_UNDECLARED, [(_UNDECLARED, 1)], options)]
            ),
        )


def _known_ways(
    served: Mapping[str, Ports], entry: Entry, options: MeshOptions, chains: _Chains
) -> dict[int, Way]:
    """By port and workload: what one serves may be something else at another, or nothing."""
    ways: dict[int, dict[str, Way]] = defaultdict(dict)
    for uid, ports in sorted(served.items()):
        for port, spoken in ports.items():
            if spoken is not Spoken.SNIFFED:
                ways[port][uid] = _to(chains, port, spoken, entry, options)
    return {port: by_workload(of_workload) for port, of_workload in sorted(ways.items())}


def _inspected_ways(
    served: Mapping[str, Ports], entry: Entry, options: MeshOptions, chains: _Chains
) -> dict[int, Way]:
    """By port: the thin listeners send nothing else here."""
    inspected = {
        port
        for ports in served.values()
        for port, spoken in ports.items()
        if spoken is Spoken.SNIFFED
    }
    return {
        port: by_http(
            _to(chains, port, Spoken.EITHER, entry, options),
            _to(chains, port, Spoken.OPAQUE, entry, options),
            http10=True,
        )
        for port in sorted(inspected)
    }


def _to(chains: _Chains, port: int, spoken: Spoken, entry: Entry, options: MeshOptions) -> Way:
    """To a port's chain, which is made if it is not there yet."""
    name = f"{port}|{spoken}"
    if name not in chains:
        cluster = InboundCluster(port, _VARIANTS[spoken])
        if spoken is Spoken.OPAQUE:
            filters = [tcp_proxy(str(cluster), [(str(cluster), 1)], options)]
        else:
            filters = [
                server_manager(
                    cluster, options, mutual_tls=entry.mutual_tls, http10=entry.inspected
                )
            ]
        chains[name] = chain(name, None, filters)
    return to_chain(name)


def _as_the_client() -> listener_components_pb2.ListenerFilter:
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_src",
        typed_config=packed(original_src_pb2.OriginalSrc(mark=PROXY_INBOUND_MARK)),
    )
