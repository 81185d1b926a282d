"""Listeners of a gateway's workload: where traffic from outside enters the mesh.

The proxies themselves listen on the Gateway's ports in the workload's namespace, and what they
open from there carries the workload's identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from meshd.compile import wellknown
from meshd.compile.gateway_hosts import bound
from meshd.compile.gateway_ports import BoundServer, GatewayPorts
from meshd.compile.gateway_tls import gateway_server
from meshd.compile.http import gateway_manager
from meshd.compile.listeners import chain, chain_match, in_namespace
from meshd.compile.names import gateway_routes
from meshd.compile.opaque import OpaqueRoute, without_repeated
from meshd.compile.opaque_rules import Rule, tcp_rules, tls_rules
from meshd.compile.outbound import identify
from meshd.compile.route_match import Entrance
from meshd.compile.tls import PLAIN_ALPN, mesh_server
from meshd.compile.visibility import View
from meshd.compile.wellknown import ONCE
from meshd.model.snapshot import MeshOptions
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
    if any(server.is_clear_text for server in port.servers):
        yield chain("http", chain_match(), [port.manager()])
        return
    taken: set[str] = set()
    for server in port.servers:
        if server.terminates_tls and server.is_http:
            names = [name for name in server.server_names if name not in taken]
            taken.update(names)
            if names:
                match = _match(names)
                yield _chain(port, server, server.name, match, [port.manager(server.name)])
    servers = {server.name: server for server in port.servers}
    for name, route in _without_repeated(port, taken):
        match = _match(route.server_names, route.prefixes)
        yield _chain(port, servers[name], route.name, match, route.filters(port.options))


def _without_repeated(port: _Port, taken: set[str]) -> Iterator[tuple[str, OpaqueRoute]]:
    """Routes with the server that each is of, but for names that HTTPS has taken."""
    owners: dict[str, str] = {}

    def noted() -> Iterator[OpaqueRoute]:
        for server, route in _opaque_routes(port):
            names = tuple(name for name in route.server_names or ("*",) if name not in taken)
            if names:
                owners[route.name] = server
                yield dataclasses.replace(route, server_names=() if "*" in names else names)

    for route in without_repeated(noted()):
        yield owners[route.name], route


def _opaque_routes(port: _Port) -> Iterator[tuple[str, OpaqueRoute]]:
    """Of connections that are not HTTP here. What names hosts comes before what is left of a
    server's wildcard, for a connection without a name that anybody routes."""
    for remaining in (False, True):
        for server in port.servers:
            if not server.is_http or not server.terminates_tls:
                for index, (names, rule) in enumerate(_rules(port, server, remaining=remaining)):
                    kind = "rest" if remaining else "route"
                    name = f"{server.name}|{kind}{index}"
                    yield (
                        server.name,
                        OpaqueRoute(name, port.number, rule.subnets, names, rule.target),
                    )


def _rules(
    port: _Port, server: BoundServer, *, remaining: bool
) -> Iterator[tuple[tuple[str, ...], Rule]]:
    """Which rules hold at a server, for which server names. Empty: whatever the name."""
    view = port.view
    entrance = Entrance(view.scope, server.server.port.number, frozenset({server.gateway_name}))
    for each in bound(view, server):
        if server.is_tls and not server.terminates_tls and not remaining:
            for rule in tls_rules(each.routing, view, entrance):
                if names := each.narrowed(rule.server_names or ("*",)):
                    yield names, rule
        for rule in tcp_rules(each.routing, view, entrance):
            if not server.is_tls:
                yield (), rule
            else:
                yield (each.server_hosts if remaining else each.hosts), rule


def _match(names: Sequence[str], prefixes: Sequence[str] = ()) -> Any:
    return chain_match(server_names=[] if "*" in names else names, prefixes=prefixes)


def _chain(port: _Port, server: BoundServer, name: str, match: Any, filters: list[Any]) -> Any:
    if not server.terminates_tls:
        return chain(name, match, filters)
    socket = _transport_socket(server, port.identity)
    return chain(name, match, filters, transport_socket=socket)


def _transport_socket(server: BoundServer, identity: Identity) -> Any:
    tls = server.server.tls
    assert tls is not None  # noqa: S101  (it terminates TLS)
    if tls.mode == "ISTIO_MUTUAL":
        return mesh_server(identity, PLAIN_ALPN)
    return gateway_server(tls, server.gateway.metadata.namespace)
