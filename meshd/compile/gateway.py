"""Listeners of a gateway's workload: where traffic from outside enters the mesh.

The proxies themselves listen on the Gateway's ports in the workload's namespace, and what they
open from there carries the workload's identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from meshd.compile import wellknown
from meshd.compile.gateway_ports import BoundServer, GatewayPorts
from meshd.compile.gateway_tls import gateway_server
from meshd.compile.http import gateway_manager
from meshd.compile.listeners import chain, chain_match, in_namespace
from meshd.compile.names import gateway_routes
from meshd.compile.opaque import first_policy, weighted
from meshd.compile.outbound import identify
from meshd.compile.route_match import gateway_name
from meshd.compile.tcp import tcp_proxy
from meshd.compile.tls import HTTP_ALPN, TCP_ALPN, mesh_server
from meshd.compile.traffic_policy import Policy
from meshd.compile.visibility import Routing, View
from meshd.compile.wellknown import ONCE
from meshd.model.snapshot import MeshOptions
from meshd.model.traffic import RouteDestination
from meshd.model.workload import Identity, Workload


@dataclasses.dataclass(frozen=True, slots=True)
class _Port:
    """A port of a gateway, and what its chains are made from."""

    number: int
    servers: Sequence[BoundServer]
    group: str
    identity: Identity
    view: View
    options: MeshOptions

    def routes(self, server: str = "") -> str:
        return gateway_routes(self.number, self.group, server)

    def manager(self, server: str = "") -> Any:
        return gateway_manager(
            f"gateway_{self.number}", self.routes(server), self.options, tls=bool(server)
        )


def workload_listeners(
    workload: Workload, identity: Identity, bound: GatewayPorts, view: View, options: MeshOptions
) -> Iterator[Any]:
    """One listener for each port."""
    known = wellknown.set_filter_state(*identify(workload, identity, options, ONCE))
    for number, servers in bound.ports.items():
        port = _Port(number, servers, bound.group, identity, view, options)
        chains = list(_chains(port))
        for made in chains:
            made.filters.insert(0, known)
        if chains:
            by_name = any(made.filter_chain_match.server_names for made in chains)
            yield in_namespace(
                workload,
                f"gateway|{number}",
                number,
                options,
                listener_filters=[wellknown.inspect_tls()] if by_name else [],
                filter_chains=chains,
            )


def _chains(port: _Port) -> Iterator[Any]:
    """Servers in clear text share one chain; those with TLS are told apart by server name."""
    taken: set[str] = set()
    if any(server.is_clear_text for server in port.servers):
        yield chain("http", chain_match(), [port.manager()])
        return
    for server in port.servers:
        names = [name for name in server.server_names if name not in taken]
        if server.terminates_tls and names:
            taken.update(names)
            yield from _terminating(port, server, names)
        elif not server.terminates_tls:
            yield from _passing_through(port, server, taken)


def _terminating(port: _Port, server: BoundServer, names: Sequence[str]) -> Iterator[Any]:
    if server.is_http:
        filters = [port.manager(server.name)]
    else:
        found = next(_tcp_routes(port, server), None)
        if found is None:
            return
        filters = [_proxy(found, port)]
    yield chain(
        server.name,
        chain_match(server_names=_server_names(names)),
        filters,
        transport_socket=_transport_socket(server, port.identity),
    )


def _transport_socket(server: BoundServer, identity: Identity) -> Any:
    tls = server.server.tls
    assert tls is not None  # noqa: S101  (it terminates TLS)
    if tls.mode == "ISTIO_MUTUAL":
        return mesh_server(identity, (*HTTP_ALPN, *TCP_ALPN, "h2", "http/1.1"))
    return gateway_server(tls, server.gateway.metadata.namespace)


def _server_names(names: Sequence[str]) -> list[str]:
    return [] if "*" in names else list(names)


def _passing_through(port: _Port, server: BoundServer, taken: set[str]) -> Iterator[Any]:
    """TCP, and TLS that the service behind terminates itself."""
    for route in (*_tls_routes(port, server), *_tcp_routes(port, server)):
        free = [name for name in route.names or ("*",) if name not in taken]
        taken.update(free)
        if free:
            match = chain_match(server_names=_server_names(free))
            yield chain(f"{server.name}|{free[0]}", match, [_proxy(route, port)])


@dataclasses.dataclass(frozen=True, slots=True)
class _Route:
    """Of connections that the gateway does not look into."""

    names: tuple[str, ...]
    clusters: tuple[tuple[str, int], ...]
    policy: Policy


def _proxy(route: _Route, port: _Port) -> Any:
    return tcp_proxy(route.clusters[0][0], route.clusters, port.options, policy=route.policy)


def _route(
    port: _Port, names: tuple[str, ...], routing: Routing, to: tuple[RouteDestination, ...]
) -> _Route:
    clusters = weighted(port.view, routing, to, port.number)
    return _Route(names, clusters, first_policy(port.view, routing, to, port.number))


def _bound_routings(server: BoundServer, view: View) -> Iterator[Routing]:
    for routing in view.routings:
        named = routing.service.spec.gateways
        if server.gateway_name in {gateway_name(name, routing.namespace) for name in named}:
            yield routing


def _tls_routes(port: _Port, server: BoundServer) -> Iterator[_Route]:
    for routing in _bound_routings(server, port.view):
        for route in routing.service.spec.tls:
            for match in route.match:
                if match.port in {None, server.server.port.number} and route.route:
                    yield _route(port, match.sni_hosts, routing, route.route)


def _tcp_routes(port: _Port, server: BoundServer) -> Iterator[_Route]:
    for routing in _bound_routings(server, port.view):
        for route in routing.service.spec.tcp:
            ports = {match.port for match in route.match} or {None}
            if ports & {None, server.server.port.number} and route.route:
                yield _route(port, (), routing, route.route)
