"""Listeners of a gateway's workload: where traffic from outside enters the mesh.

The proxies themselves listen on the Gateway's ports in the workload's namespace, and what they
open from there carries the workload's identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import msgspec

from meshd.compile.gateway.hosts import bound
from meshd.compile.gateway.ports import BoundServer, GatewayPorts
from meshd.compile.gateway.tls import gateway_server
from meshd.compile.http.route_match import Entrance
from meshd.compile.names import gateway_listener_name, gateway_routes
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import Chain, Http, MeshTls, Owner, ServerTls, Target
from meshd.compile.plan.choices import To, Way
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.tls import PLAIN_ALPN
from meshd.compile.policy.authorization import of_connections
from meshd.compile.traffic.choice import Choice
from meshd.compile.traffic.opaque_rules import Rule, tcp_rules, tls_rules
from meshd.compile.traffic.opaque_rules import Target as RuleTarget
from meshd.compile.traffic.outbound import owner
from meshd.compile.traffic.sockets import socket_in_namespace
from meshd.compile.visibility.view import View
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload


@dataclasses.dataclass(frozen=True, slots=True)
class _Port:
    """A port of a gateway, and the parts of its chains."""

    number: int
    servers: Sequence[BoundServer]
    gateway: str
    """The workload, by whom its routes are named."""
    owner: Owner
    identity: Identity
    view: View
    options: MeshOptions
    is_served: Callable[[str], bool]
    guard: Authorization | None

    def requests(self, server: str = "") -> Http:
        """Return the target of requests from outside the mesh: the client's claims are not
        trusted."""
        return Http(
            statistics=f"gateway_{self.number}",
            routes=gateway_routes(self.number, self.gateway, server),
            access_log=self.options.access_log,
            applies_routes=True,
            certificate="replace",
            http10=self.options.accept_http_10,
            asks=self.options.providers,
            scheme="https" if server else "http",
        )


def workload_listeners(  # noqa: PLR0917
    workload: Workload,
    identity: Identity,
    bound: GatewayPorts,
    view: View,
    options: MeshOptions,
    is_served: Callable[[str], bool],
    guard: Authorization | None = None,
) -> Iterator[Listener]:
    """Yield a listener for each port.

    ``is_served``: whether proxies are sent a secret of this name. ``guard``: who may open
    connections to the gateway; None: no policy is about it. Hosts of servers, and who may send
    requests, are in the choice and in the routes: no chain depends on them.
    """
    whose = owner(workload, identity, options)
    for number, servers in bound.ports.items():
        port = _Port(number, servers, bound.owner, whose, identity, view, options, is_served, guard)
        chains, way = _chains(port)
        if way is not None:
            name = gateway_listener_name(workload.uid, number)
            yield Listener(
                name=name,
                statistics=name.partition("|")[2],
                socket=socket_in_namespace(workload, number, options),
                inspects_tls=any(server.server.is_tls for server in servers),
                choice=way,
                chains=tuple(chains[name] for name in sorted(chains)),
            )


def _chains(port: _Port) -> tuple[dict[str, Chain], Way | None]:
    """Return chains by name, and the tree that leads to them, which is None if there is nothing to
    serve.

    Plaintext servers share one chain; those with TLS are told apart by server name.
    """
    clear = next((server for server in port.servers if server.server.is_clear_text), None)
    if clear is not None:
        chain = Chain(name="http", target=port.requests(), owner=port.owner)
        return {chain.name: chain}, To(chain.name, clear.origin)
    chains: dict[str, Chain] = {}
    choice = Choice()
    for server in port.servers:
        if server.server.is_for("http"):
            made = _chain(port, server, server.name, port.requests(server.name))
            chains[made.name] = made
            _offer(choice, To(made.name, server.origin), server.server_names)
    for server, names, rule in _opaque(port):
        made = _opaque_chain(port, server, rule.target)
        chains[made.name] = made
        to = To(made.name, rule.origin)
        _offer(choice, to, names, rule.subnets, only_tls=server.server.is_tls)
        if rule.target.unruled is not None:
            before = _opaque_chain(port, server, rule.target.unruled)
            chains[before.name] = before
            choice.keep(before.name, rule.subnets)
    wanted = set(choice.chains())
    return {name: made for name, made in chains.items() if name in wanted}, choice.way()


def _offer(
    choice: Choice,
    to: To,
    names: Sequence[str],
    subnets: Sequence[str] = (),
    *,
    only_tls: bool = True,
) -> None:
    choice.add(to, subnets, [name for name in names if name != "*"])
    if not names or "*" in names:
        choice.add(to, subnets, only_tls=only_tls)


def _opaque(port: _Port) -> Iterator[tuple[BoundServer, tuple[str, ...], Rule]]:
    """Yield rules for connections that are not HTTP here.

    Rules that name hosts come before what is left of a server's wildcard, for connections without a
    routed name.
    """
    for remaining in (False, True):
        for server in port.servers:
            if server.server.is_for("tcp"):
                for names, rule in _rules(port, server, remaining=remaining):
                    yield server, names, rule


def _rules(
    port: _Port, server: BoundServer, *, remaining: bool
) -> Iterator[tuple[tuple[str, ...], Rule]]:
    """Yield the rules of a server, with their server names. Empty: any name."""
    view = port.view
    entrance = Entrance(view.scope, server.server.port.number, frozenset({server.gateway_name}))
    for each in bound(view, server):
        if server.server.is_for("tls") and not remaining:
            for rule in tls_rules(each.routing, view, entrance):
                if names := each.narrowed(rule.server_names or ("*",)):
                    yield names, rule
        for rule in tcp_rules(each.routing, view, entrance):
            if not server.server.is_tls:
                yield (), rule
            else:
                yield (each.server_hosts if remaining else each.hosts), rule


def _opaque_chain(port: _Port, server: BoundServer, target: RuleTarget) -> Chain:
    rules = port.guard and of_connections(port.guard)
    tcp = msgspec.structs.replace(target.tcp(port.options.access_log), rules=rules)
    return _chain(port, server, target.name, tcp)


def _chain(port: _Port, server: BoundServer, name: str, target: Target) -> Chain:
    """Return a chain, whose name tells all that it is made from.

    What a policy may ask for is noted always, so that none replaces the chain of requests.
    """
    if not server.server.terminates_tls:
        return Chain(name=name, target=target, owner=port.owner, notes_server_name=True)
    named = name if name == server.name else f"{server.name}|{name}"
    tls = _tls(port, server)
    return Chain(
        name=named,
        target=target,
        owner=port.owner,
        tls=tls,
        notes_peer=isinstance(tls, MeshTls),
        notes_server_name=True,
    )


def _tls(port: _Port, server: BoundServer) -> MeshTls | ServerTls:
    tls = server.server.tls
    assert tls is not None  # noqa: S101  (it terminates TLS)
    if tls.mode == "ISTIO_MUTUAL":
        return MeshTls(port.identity, PLAIN_ALPN)
    return gateway_server(tls, port.identity.namespace, port.is_served)
