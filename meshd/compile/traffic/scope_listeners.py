"""The internal listeners that the outgoing connections of a scope share.

One chooses by port and address. Where the choice depends on a connection's first bytes, it hands
the connection to the other one, which inspects it. So no connection waits for an inspection that
its port and address do not need.

A proxy takes up changes of the two one after the other. So the one that inspects leads back what it
does not know, and the other one then decides by port and address alone: whichever of the two is the
newer, connections to services that have not changed arrive (decision 37). Those of services that
have changed do, too, since proxies are told of the two in the right order (``xds.following``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

from meshd.api.protocol import Protocol
from meshd.compile.names import (
    BLACK_HOLE_CLUSTER,
    PASSTHROUGH_CLUSTER,
    client_routes,
    scope_listener_name,
)
from meshd.compile.origins import of_port
from meshd.compile.plan.chains import Chain, Http, Tcp
from meshd.compile.plan.choices import ByOtherPort, ByPort, ByTls, To, Way
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.upstreams import Upstream
from meshd.compile.traffic import dns
from meshd.compile.traffic.choice import Choice
from meshd.compile.traffic.fixed_chains import LOOP, LOOP_TRAP, REFUSED, REFUSING, hop
from meshd.compile.traffic.opaque import opaque_routes
from meshd.compile.traffic.opaque_rules import Target
from meshd.compile.traffic.virtual_addresses import refusal, unless_closed
from meshd.compile.upstream.fixed import internal
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.view import View
from meshd.model.interception import DNS_SERVICE_PORT, OUTBOUND_PORT
from meshd.model.snapshot import MeshOptions

_INSPECT: Final = "inspect"
_BACK: Final = "back"
_REST: Final = "rest"


def scope_upstreams(scope: str) -> Iterator[Upstream]:
    """Yield the upstreams that lead into the scope's internal listeners."""
    for inspecting in (False, True):
        yield internal(scope_listener_name(scope, inspecting=inspecting))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ScopeChoices:
    """How a scope's connections find their chains: told by identity, for many scopes share it."""

    direct: Way
    """By port and address."""
    inspected: Way
    """By the first bytes, too."""
    direct_chains: tuple[str, ...]
    inspected_chains: tuple[str, ...]
    """The names of the chains to which each leads, but for those that all scopes have."""
    http: Mapping[str, tuple[int, bool]]
    """Of chains for HTTP, which are a scope's own: the port, and whether it is detected."""
    others: Mapping[str, Chain]
    """All other chains."""
    requests: tuple[int, ...]
    """The ports at which all that is sent to any address is HTTP."""
    left: frozenset[str]
    """Ports and networks of which the first bytes decide."""


def choices_are_alike(index: MeshIndex) -> bool:
    """Return whether connections of all scopes' clients find the same chains: True only if that is
    certain without looking at the clients."""
    opaque = (
        record
        for record in index.services.values()
        if any(port.protocol.is_for("tcp") for port in record.ports)
    )
    return (
        index.is_seen_alike
        and not any(routing.is_of_connections for routing in index.routings)
        and all(map(index.rules.are_the_same_for_all, opaque))
    )


def scope_choices(view: View, options: MeshOptions) -> ScopeChoices:
    """Return how connections of a view's clients find their chains."""
    chains = _Chains(options)
    choices = dict(_choices(view, chains))
    if options.captures_dns:
        # As its datagrams do: the name of a service with this port is the resolver's to answer.
        choices.pop(DNS_SERVICE_PORT, None)
    direct = {port: choice.direct(To(_INSPECT)) for port, choice in choices.items()}
    inspected = {
        port: choice.inspected(To(_BACK)) for port, choice in choices.items() if choice.is_inspected
    }
    refused = refusal(view.services.values(), options, REFUSED)
    return ScopeChoices(
        _tree(direct, options, refused, queries=options.captures_dns),
        _inspecting_tree(inspected, options, refused),
        _wanted(direct),
        _wanted(inspected),
        chains.requests,
        chains.others,
        tuple(sorted(port for port, choice in direct.items() if _is_of_requests(choice, port))),
        frozenset(f"{port}|{each}" for port, choice in choices.items() for each in choice.left()),
    )


def _is_of_requests(choice: Choice, port: int) -> bool:
    """Return whether all connections to a port get its chain for HTTP: without a look at their
    first bytes none is known to be TLS."""
    way = choice.way()
    plain = way.plain if isinstance(way, ByTls) else way
    return isinstance(plain, To) and plain.chain == _of_requests(port)


def _of_requests(port: int) -> str:
    return f"http|{port}"


def scope_listeners(
    scope: str, choices: ScopeChoices, resolver: str, options: MeshOptions
) -> tuple[Listener, Listener]:
    """Return the listener that chooses by port and address, and the one that inspects.

    ``resolver``: the cluster for queries over TCP.
    """
    return (
        _listener(scope, choices, options, resolver),
        _listener(scope, choices, options, resolver, inspecting=True),
    )


def _listener(
    scope: str,
    choices: ScopeChoices,
    options: MeshOptions,
    resolver: str,
    *,
    inspecting: bool = False,
) -> Listener:
    """Return a listener, of which only chains and the choice depend on the services."""
    wanted = choices.inspected_chains if inspecting else choices.direct_chains
    wanted = tuple(name for name in wanted if name != _BACK)
    queries = options.captures_dns and not inspecting
    return Listener(
        name=scope_listener_name(scope, inspecting=inspecting),
        statistics="scope",
        original_destination=True,
        inspects_tls=inspecting,
        inspects_http=inspecting,
        patience=options.protocol_detection_timeout,
        choice=choices.inspected if inspecting else choices.direct,
        chains=(
            LOOP_TRAP,
            REFUSING,
            *((_back(scope),) if inspecting else ()),
            *((dns.tcp_chain(resolver, options),) if queries else ()),
            *(_chain(scope, choices, name, options) for name in wanted),
        ),
        default=_rest(options),
    )


def _tree(
    choices: Mapping[int, Choice],
    options: MeshOptions,
    refused: Way | None,
    *,
    queries: bool = False,
) -> Way:
    """Return the tree of the listener that chooses by port and address."""
    ways = _ways(choices)
    resolved: dict[int, Way] = {}
    if queries:
        ways[DNS_SERVICE_PORT] = resolved[DNS_SERVICE_PORT] = To(dns.DNS_CHAIN)
    return unless_closed(ByPort(ways, refused), options, REFUSED, resolved)


def _inspecting_tree(
    choices: Mapping[int, Choice], options: MeshOptions, refused: Way | None
) -> Way:
    """Return the tree of the listener that inspects, to which all other ports are new."""
    ways = _ways(choices)
    back = ByOtherPort(tuple(ways), To(_BACK), ByPort(ways, refused))
    return unless_closed(back, options, REFUSED)


def _ways(choices: Mapping[int, Choice]) -> dict[int, Way]:
    ways = {
        port: way for port, choice in sorted(choices.items()) if (way := choice.way()) is not None
    }
    return {**ways, OUTBOUND_PORT: To(LOOP)}


def _wanted(choices: Mapping[int, Choice]) -> tuple[str, ...]:
    return tuple(sorted({name for choice in choices.values() for name in choice.chains()}))


def _chain(scope: str, choices: ScopeChoices, name: str, options: MeshOptions) -> Chain:
    if name == _INSPECT:
        target = hop("inspected", scope_listener_name(scope, inspecting=True))
        return Chain(name=_INSPECT, target=target, hands_over=True)
    if name in choices.others:
        return choices.others[name]
    port, is_detected = choices.http[name]
    target = Http(
        statistics=f"outbound_{port}",
        routes=client_routes(port, scope),
        access_log=options.access_log,
        applies_routes=True,
        certificate="remove",
        http10=options.accept_http_10,
    )
    return Chain(
        name=name, target=target, names_callers=options.short_way, announces_http=is_detected
    )


def _back(scope: str) -> Chain:
    """Return the chain of what is not inspected here: it goes where it came from."""
    target = hop("back", scope_listener_name(scope))
    return Chain(name=_BACK, target=target, hands_over=True, leads_back=True)


def _rest(options: MeshOptions) -> Chain:
    """Return the chain of what no service wants."""
    is_closed = options.outbound_policy == "REGISTRY_ONLY"
    rest = BLACK_HOLE_CLUSTER if is_closed else PASSTHROUGH_CLUSTER
    target = Tcp(statistics=rest, upstreams=((rest, 1),), access_log=options.access_log)
    return Chain(name=_REST, target=target)


class _Chains:
    """Chains by name. A chain depends on no other service than those that it leads to."""

    def __init__(self, options: MeshOptions) -> None:
        self._options = options
        self.requests: dict[str, tuple[int, bool]] = {}
        """Those for HTTP, with the port, and whether it is detected."""
        self.others: dict[str, Chain] = {}

    def http(self, port: int) -> str:
        """Add the chain for HTTP, which goes by host, so that it serves all services on a port."""
        name = _of_requests(port)
        self.requests[name] = port, False
        return name

    def sniffed(self, port: int) -> str:
        """Add the chain for detected HTTP, which is announced to the other end."""
        name = f"sniffed|{port}"
        self.requests[name] = port, True
        return name

    def opaque(self, target: Target) -> str:
        name = target.name
        if name not in self.others:
            self.others[name] = Chain(name=name, target=target.tcp(self._options.access_log))
        return name


def _of_only_service(view: View, port: int) -> Origin | None:
    """Return the field that asks for HTTP on a port; None: several services do."""
    records = [
        record
        for record in view.by_port[port]
        if any(protocol.is_http for protocol in record.protocols[port])
    ]
    return of_port(records[0], port) if len(records) == 1 else None


def _own_addresses(view: View, port: int) -> tuple[str, ...]:
    """Return the addresses of Services of Kubernetes that speak HTTP on a port: no network that a
    ServiceEntry writes takes them."""
    return tuple(
        address
        for record in view.by_port[port]
        if record.name and not record.headless
        if any(protocol.is_http for protocol in record.protocols[port])
        for address in record.addresses
    )


def _choices(view: View, chains: _Chains) -> Iterator[tuple[int, Choice]]:
    """Yield the choice of each port that some service has."""
    found: dict[int, Choice] = {}
    for route in opaque_routes(view):
        choice = found.setdefault(route.port, Choice())
        choice.add(
            To(chains.opaque(route.target), route.origin),
            route.prefixes,
            route.server_names,
            only_tls=route.only_tls,
            keep=route.is_default,
        )
        if (before := route.target.unruled) is not None:
            choice.keep(chains.opaque(before), route.prefixes)
        if route.sniffed:
            choice.add_http(To(chains.sniffed(route.port), route.origin), route.prefixes)
    for port in view.by_port:
        spoken = view.protocols(port)
        if any(protocol.is_http for protocol in spoken):
            origin = _of_only_service(view, port)
            choice = found.setdefault(port, Choice())
            choice.add_http(To(chains.http(port), origin))
            if choice.has_networks:
                choice.add_http(To(chains.http(port), origin), _own_addresses(view, port))
        if spoken & {Protocol.TLS, Protocol.HTTPS}:
            found.setdefault(port, Choice()).expect_tls()
    for port, choice in found.items():
        choice.close()
        yield port, choice
