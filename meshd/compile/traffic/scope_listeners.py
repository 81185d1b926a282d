"""The internal listeners that the outgoing connections of a scope share.

One chooses by port and address. Where the choice depends on a connection's first bytes, it hands
the connection to the other one, which inspects it. So no connection waits for an inspection that
its port and address do not need.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from meshd.compile.plan.choices import ByPort, To, Way
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.upstreams import Upstream
from meshd.compile.traffic import dns
from meshd.compile.traffic.choice import Choice
from meshd.compile.traffic.fixed_chains import LOOP, LOOP_TRAP, REFUSED, REFUSING, hop
from meshd.compile.traffic.opaque import OpaqueRoute, opaque_routes
from meshd.compile.traffic.virtual_addresses import refusal, unless_closed
from meshd.compile.upstream.fixed import internal
from meshd.compile.visibility import View
from meshd.model.interception import DNS_SERVICE_PORT, OUTBOUND_PORT
from meshd.model.snapshot import MeshOptions

_INSPECT: Final = "inspect"
_REST: Final = "rest"


def scope_upstreams(scope: str) -> Iterator[Upstream]:
    """Yield the upstreams that lead into the scope's internal listeners."""
    for inspecting in (False, True):
        yield internal(scope_listener_name(scope, inspecting=inspecting))


def scope_listeners(view: View, resolver: str, options: MeshOptions) -> tuple[Listener, Listener]:
    """Return the listener that chooses by port and address, and the one that inspects.

    ``resolver``: the cluster for queries over TCP.
    """
    chains = _Chains(view, options)
    choices = dict(_choices(view, chains))
    if options.captures_dns:
        # As its datagrams do: the name of a service with this port is the resolver's to answer.
        choices.pop(DNS_SERVICE_PORT, None)
    direct = {port: choice.direct(To(_INSPECT)) for port, choice in choices.items()}
    inspected = {
        port: choice.inspected() for port, choice in choices.items() if choice.is_inspected
    }
    queries = dns.tcp_chain(resolver) if options.captures_dns else None
    refused = refusal(view.services.values(), options, REFUSED)
    return (
        _listener(view, options, chains, direct, refused, queries=queries),
        _listener(view, options, chains, inspected, refused, inspecting=True),
    )


def _listener(
    view: View,
    options: MeshOptions,
    chains: _Chains,
    choices: dict[int, Choice],
    refused: Way | None,
    *,
    inspecting: bool = False,
    queries: Chain | None = None,
) -> Listener:
    """Return a listener, of which only chains and the choice depend on the services."""
    ways = {
        port: way for port, choice in sorted(choices.items()) if (way := choice.way()) is not None
    }
    ways[OUTBOUND_PORT] = To(LOOP)
    resolved: dict[int, Way] = {}
    if queries is not None:
        ways[DNS_SERVICE_PORT] = resolved[DNS_SERVICE_PORT] = To(dns.DNS_CHAIN)
    wanted = {name for choice in choices.values() for name in choice.chains()}
    return Listener(
        name=scope_listener_name(view.scope.name, inspecting=inspecting),
        statistics="scope",
        original_destination=True,
        inspects_tls=inspecting,
        inspects_http=inspecting,
        patience=options.protocol_detection_timeout,
        choice=unless_closed(ByPort(ways, refused), options, REFUSED, resolved),
        chains=(
            LOOP_TRAP,
            REFUSING,
            *(() if queries is None else (queries,)),
            *(chains[name] for name in sorted(wanted)),
        ),
        default=chains.rest(),
    )


class _Chains:
    """Chains by name. A chain depends on no other service than those that it leads to."""

    def __init__(self, view: View, options: MeshOptions) -> None:
        self._view = view
        self._options = options
        self._made = {_INSPECT: self._inspect()}

    def __getitem__(self, name: str) -> Chain:
        return self._made[name]

    def http(self, port: int) -> str:
        """Add the chain for HTTP, which goes by host, so that it serves all services on a port."""
        name = f"http|{port}"
        if name not in self._made:
            self._made[name] = Chain(name=name, target=self._requests(port))
        return name

    def sniffed(self, port: int) -> str:
        """Add the chain for detected HTTP, which is announced to the other end."""
        name = f"sniffed|{port}"
        if name not in self._made:
            target = self._requests(port)
            self._made[name] = Chain(name=name, target=target, announces_http=True)
        return name

    def opaque(self, route: OpaqueRoute) -> str:
        name = route.target.name
        if name not in self._made:
            target = route.target.tcp(self._options.access_log)
            self._made[name] = Chain(name=name, target=target)
        return name

    def rest(self) -> Chain:
        """Return the chain of what no service wants."""
        options = self._options
        is_closed = options.outbound_policy == "REGISTRY_ONLY"
        rest = BLACK_HOLE_CLUSTER if is_closed else PASSTHROUGH_CLUSTER
        target = Tcp(statistics=rest, upstreams=((rest, 1),), access_log=options.access_log)
        return Chain(name=_REST, target=target)

    def _inspect(self) -> Chain:
        name = scope_listener_name(self._view.scope.name, inspecting=True)
        return Chain(name=_INSPECT, target=hop("inspected", name), hands_over=True)

    def _requests(self, port: int) -> Http:
        return Http(
            statistics=f"outbound_{port}",
            routes=client_routes(port, self._view.scope.name),
            access_log=self._options.access_log,
            applies_routes=True,
            certificate="remove",
            http10=self._options.accept_http_10,
        )


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
            To(chains.opaque(route), route.origin),
            route.prefixes,
            route.server_names,
            only_tls=route.only_tls,
            keep=route.is_default,
        )
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
