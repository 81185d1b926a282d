"""The internal listeners that the outgoing connections of a scope share.

One chooses by port and address. Where the choice depends on a connection's first bytes, it hands
the connection to the other one, which inspects it. So no connection waits for an inspection that
its port and address do not need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2

from meshd.api.protocol import Protocol
from meshd.compile.envoy import limits, wellknown
from meshd.compile.envoy.internal import handover, internal_cluster
from meshd.compile.envoy.listeners import LOOP, REFUSED, chain, loop_trap, refused
from meshd.compile.envoy.matching import by_port, to_chain
from meshd.compile.envoy.wellknown import ONCE, seconds, state_value
from meshd.compile.explain.chain_choice import Choice
from meshd.compile.http.connection import client_manager
from meshd.compile.names import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, client_routes
from meshd.compile.traffic import dns
from meshd.compile.traffic.opaque import OpaqueRoute, opaque_routes, target_filters
from meshd.compile.traffic.tcp import tcp_proxy
from meshd.compile.traffic.virtual_addresses import refusal
from meshd.compile.visibility import View
from meshd.model.interception import DNS_SERVICE_PORT, OUTBOUND_PORT
from meshd.model.snapshot import MeshOptions

_INSPECT: Final = "inspect"
_REST: Final = "rest"


def scope_listener_name(scope: str, *, inspecting: bool = False) -> str:
    """Return the name of an internal listener, and of the cluster that leads there."""
    return f"outbound{'-inspected' if inspecting else ''}@{scope}"


def scope_clusters(scope: str) -> Iterator[cluster_pb2.Cluster]:
    """Yield the clusters that lead into the scope's internal listeners."""
    for inspecting in (False, True):
        name = scope_listener_name(scope, inspecting=inspecting)
        yield internal_cluster(name, name)


def scope_listeners(
    view: View, resolver: str, options: MeshOptions
) -> Iterator[listener_pb2.Listener]:
    """Yield the listeners; ``resolver``: the cluster for queries over TCP."""
    chains = _Chains(view, options)
    choices = dict(_choices(view, chains))
    if options.captures_dns:
        # As its datagrams do: the name of a service with this port is the resolver's to answer.
        choices.pop(DNS_SERVICE_PORT, None)
    direct = {port: choice.direct(_INSPECT) for port, choice in choices.items()}
    queries = dns.tcp_chain(resolver) if options.captures_dns else None
    yield _listener(view, options, chains, direct, queries=queries)
    inspected = {
        port: choice.inspected() for port, choice in choices.items() if choice.is_inspected
    }
    yield _listener(view, options, chains, inspected, inspecting=True)


def _listener(
    view: View,
    options: MeshOptions,
    chains: _Chains,
    choices: dict[int, Choice],
    *,
    inspecting: bool = False,
    queries: listener_components_pb2.FilterChain | None = None,
) -> listener_pb2.Listener:
    """Return a listener, of which only chains and the matcher depend on the services."""
    ways = {
        port: way for port, choice in sorted(choices.items()) if (way := choice.way()) is not None
    }
    own_ports = {OUTBOUND_PORT: to_chain(LOOP)}
    if queries is not None:
        own_ports[DNS_SERVICE_PORT] = to_chain(dns.DNS_CHAIN)
    wanted = {name for choice in choices.values() for name in choice.chains()}
    inspectors = (wellknown.inspect_tls(), wellknown.inspect_http())
    return listener_pb2.Listener(
        name=scope_listener_name(view.scope.name, inspecting=inspecting),
        stat_prefix="scope",
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        listener_filters=[
            wellknown.original_destination(),
            *(inspectors if inspecting else ()),
        ],
        listener_filters_timeout=seconds(options.protocol_detection_timeout),
        continue_on_listener_filters_timeout=True,
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        filter_chain_matcher=by_port(
            {**ways, **own_ports}, refusal(view.services.values(), options, REFUSED)
        ).matcher,
        filter_chains=[
            loop_trap(),
            refused(),
            *([] if queries is None else [queries]),
            *(chains[name] for name in sorted(wanted)),
        ],
        default_filter_chain=chains.rest(),
    )


class _Chains:
    """Chains by name. A chain depends on no other service than those that it leads to."""

    def __init__(self, view: View, options: MeshOptions) -> None:
        self._view = view
        self._options = options
        self._made: dict[str, listener_components_pb2.FilterChain] = {_INSPECT: self._inspect()}

    def __getitem__(self, name: str) -> listener_components_pb2.FilterChain:
        return self._made[name]

    def http(self, port: int) -> str:
        """Add the chain for HTTP, which goes by host, so that it serves all services on a port."""
        return self._keep(f"http|{port}", [self._manager(port)])

    def sniffed(self, port: int) -> str:
        """Add the chain for detected HTTP, which is announced to the other end."""
        announced = state_value(
            wellknown.ALPN_STATE, "istio-http/1.1", ONCE, factory=wellknown.ALPN_STATE
        )
        known = wellknown.set_filter_state(announced)
        return self._keep(f"sniffed|{port}", [known, self._manager(port)])

    def opaque(self, route: OpaqueRoute) -> str:
        return self._keep(route.target.name, target_filters(route.target, self._options))

    def rest(self) -> listener_components_pb2.FilterChain:
        rest = PASSTHROUGH_CLUSTER
        if self._options.outbound_policy == "REGISTRY_ONLY":
            rest = BLACK_HOLE_CLUSTER
        return chain(_REST, None, [tcp_proxy(rest, [(rest, 1)], self._options)])

    def _inspect(self) -> listener_components_pb2.FilterChain:
        name = scope_listener_name(self._view.scope.name, inspecting=True)
        return chain(
            _INSPECT,
            None,
            [wellknown.set_filter_state(*handover()), tcp_proxy("inspected", [(name, 1)])],
        )

    def _manager(self, port: int) -> listener_components_pb2.Filter:
        routes = client_routes(port, self._view.scope.name)
        return client_manager(f"outbound_{port}", routes, self._options)

    def _keep(self, name: str, filters: list[listener_components_pb2.Filter]) -> str:
        if name not in self._made:
            self._made[name] = chain(name, None, filters)
        return name


def _choices(view: View, chains: _Chains) -> Iterator[tuple[int, Choice]]:
    """Yield the choice of each port that some service has."""
    found: dict[int, Choice] = {}
    for route in opaque_routes(view):
        choice = found.setdefault(route.port, Choice())
        chosen = chains.opaque(route)
        choice.add(
            chosen,
            route.prefixes,
            route.server_names,
            only_tls=route.only_tls,
            keep=route.is_default,
        )
        if route.sniffed:
            choice.add_http(chains.sniffed(route.port), route.prefixes)
    for port in view.by_port:
        spoken = view.protocols(port)
        if any(protocol.is_http for protocol in spoken):
            found.setdefault(port, Choice()).add_http(chains.http(port))
        if spoken & {Protocol.TLS, Protocol.HTTPS}:
            found.setdefault(port, Choice()).expect_tls()
    for port, choice in found.items():
        choice.close()
        yield port, choice
