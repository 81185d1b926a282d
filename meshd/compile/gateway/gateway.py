"""Listeners of a gateway's workload: where traffic from outside enters the mesh.

The proxies themselves listen on the Gateway's ports in the workload's namespace, and what they
open from there carries the workload's identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2

from meshd.compile.envoy import wellknown
from meshd.compile.envoy.listeners import chain, in_namespace
from meshd.compile.envoy.matching import Way, always, to_chain
from meshd.compile.envoy.wellknown import ONCE
from meshd.compile.explain.chain_choice import Choice
from meshd.compile.gateway.hosts import bound
from meshd.compile.gateway.ports import BoundServer, GatewayPorts
from meshd.compile.gateway.tls import gateway_server
from meshd.compile.http.connection import gateway_manager
from meshd.compile.http.route_match import Entrance
from meshd.compile.names import gateway_routes
from meshd.compile.traffic.opaque import target_filters
from meshd.compile.traffic.opaque_rules import Rule, tcp_rules, tls_rules
from meshd.compile.traffic.outbound import identify
from meshd.compile.upstream.tls import PLAIN_ALPN, mesh_server
from meshd.compile.visibility import View
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload


@dataclasses.dataclass(frozen=True, slots=True)
class _Port:
    """A port of a gateway, and the parts of its chains."""

    number: int
    servers: Sequence[BoundServer]
    owner: str
    identity: Identity
    view: View
    options: MeshOptions
    is_served: Callable[[str], bool]

    def manager(self, server: str = "") -> listener_components_pb2.Filter:
        routes = gateway_routes(self.number, self.owner, server)
        return gateway_manager(f"gateway_{self.number}", routes, self.options, tls=bool(server))


def workload_listeners(  # noqa: PLR0917
    workload: Workload,
    identity: Identity,
    bound: GatewayPorts,
    view: View,
    options: MeshOptions,
    is_served: Callable[[str], bool],
) -> Iterator[listener_pb2.Listener]:
    """Yield a listener for each port.

    ``is_served``: whether proxies are sent a secret of this name. The hosts of servers are in the
    matcher and in the routes: no chain depends on them.
    """
    known = wellknown.set_filter_state(*identify(workload, identity, options, ONCE))
    for number, servers in bound.ports.items():
        port = _Port(number, servers, bound.owner, identity, view, options, is_served)
        chains, way = _chains(port)
        for made in chains.values():
            made.filters.insert(0, known)
        if way is not None:
            yield in_namespace(
                workload,
                f"gateway|{number}",
                number,
                options,
                listener_pb2.Listener(
                    listener_filters=[wellknown.inspect_tls()]
                    if any(server.server.is_tls for server in servers)
                    else [],
                    filter_chain_matcher=way.matcher if way.HasField("matcher") else always(way),
                    filter_chains=[chains[name] for name in sorted(chains)],
                ),
            )


def _chains(port: _Port) -> tuple[dict[str, listener_components_pb2.FilterChain], Way | None]:
    """Return chains by name, and the tree that leads to them, which is None if there is nothing to
    serve.

    Plaintext servers share one chain; those with TLS are told apart by server name.
    """
    if any(server.server.is_clear_text for server in port.servers):
        return {"http": chain("http", None, [port.manager()])}, to_chain("http")
    chains: dict[str, listener_components_pb2.FilterChain] = {}
    choice = Choice()
    for server in port.servers:
        if server.server.terminates_tls and server.server.is_http:
            made = _chain(port, server, server.name, [port.manager(server.name)])
            chains[made.name] = made
            _offer(choice, made.name, server.server_names)
    for server, names, rule in _opaque(port):
        made = _chain(port, server, rule.target.name, target_filters(rule.target, port.options))
        chains[made.name] = made
        _offer(choice, made.name, names, rule.subnets, only_tls=server.server.is_tls)
    wanted = set(choice.chains())
    return {name: made for name, made in chains.items() if name in wanted}, choice.way()


def _offer(
    choice: Choice,
    chain: str,
    names: Sequence[str],
    subnets: Sequence[str] = (),
    *,
    only_tls: bool = True,
) -> None:
    choice.add(chain, subnets, [name for name in names if name != "*"])
    if not names or "*" in names:
        choice.add(chain, subnets, only_tls=only_tls)


def _opaque(port: _Port) -> Iterator[tuple[BoundServer, tuple[str, ...], Rule]]:
    """Yield rules for connections that are not HTTP here.

    Rules that name hosts come before what is left of a server's wildcard, for connections without a
    routed name.
    """
    for remaining in (False, True):
        for server in port.servers:
            if not server.server.is_http or not server.server.terminates_tls:
                for names, rule in _rules(port, server, remaining=remaining):
                    yield server, names, rule


def _rules(
    port: _Port, server: BoundServer, *, remaining: bool
) -> Iterator[tuple[tuple[str, ...], Rule]]:
    """Yield the rules of a server, with their server names. Empty: any name."""
    view = port.view
    entrance = Entrance(view.scope, server.server.port.number, frozenset({server.gateway_name}))
    for each in bound(view, server):
        if server.server.is_tls and not server.server.terminates_tls and not remaining:
            for rule in tls_rules(each.routing, view, entrance):
                if names := each.narrowed(rule.server_names or ("*",)):
                    yield names, rule
        for rule in tcp_rules(each.routing, view, entrance):
            if not server.server.is_tls:
                yield (), rule
            else:
                yield (each.server_hosts if remaining else each.hosts), rule


def _chain(
    port: _Port, server: BoundServer, name: str, filters: list[listener_components_pb2.Filter]
) -> listener_components_pb2.FilterChain:
    """Return a chain, whose name tells all that it is made from."""
    if not server.server.terminates_tls:
        return chain(name, None, filters)
    socket = _transport_socket(server, port.identity, port.is_served)
    named = name if name == server.name else f"{server.name}|{name}"
    return chain(named, None, filters, transport_socket=socket)


def _transport_socket(
    server: BoundServer, identity: Identity, is_served: Callable[[str], bool]
) -> base_pb2.TransportSocket:
    tls = server.server.tls
    assert tls is not None  # noqa: S101  (it terminates TLS)
    if tls.mode == "ISTIO_MUTUAL":
        return mesh_server(identity, PLAIN_ALPN)
    return gateway_server(tls, identity.namespace, is_served)
