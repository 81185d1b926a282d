"""Routes of connections that are not HTTP: by address, port and server name to clusters.

They come from services' ports and the ``tcp`` and ``tls`` parts of VirtualServices; the first that
matches counts, as with HTTP routes.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from meshd.api.protocol import Protocol
from meshd.compile.http.route_match import Entrance
from meshd.compile.origins import of_service
from meshd.compile.plan.origin import Origin
from meshd.compile.traffic.opaque_rules import Target, tcp_rules, tls_rules, to_cluster
from meshd.compile.visibility.view import View
from meshd.matching.connections import canonical
from meshd.model.service import Port, Resolution, ServiceRecord


class OpaqueRoute(msgspec.Struct, frozen=True):
    """Connections to a port, and their destination."""

    port: int
    prefixes: tuple[str, ...]
    """Addresses or CIDRs of the destination; empty: any."""
    server_names: tuple[str, ...]
    """Empty: any, or none at all."""
    target: Target
    only_tls: bool = False
    sniffed: bool = False
    """What begins like HTTP goes by its host instead."""
    origin: Origin | None = None
    """The object and field that say so."""
    is_default: bool = False
    """It is where connections to a service go of which no VirtualService says anything."""

    @property
    def clusters(self) -> tuple[tuple[str, int], ...]:
        return self.target.clusters


def destinations(service: ServiceRecord) -> tuple[str, ...]:
    """Return the addresses to which clients of this service connect."""
    return service.endpoint_addresses if service.headless else service.addresses


def opaque_routes(view: View) -> Iterator[OpaqueRoute]:
    """Yield routes, the most specific first where two could match the same connection.

    Services of Kubernetes come first: no ServiceEntry takes their connections by writing their
    addresses.
    """
    owned = _owned_sockets(view)
    for service in sorted(view.services.values(), key=lambda one: (not one.name, one.host)):
        for index, port in enumerate(service.ports):
            if not port.protocol.is_for("tcp"):
                continue
            declared = destinations(service)
            prefixes = declared if service.name else _left_by(owned, declared, port.number)
            by_name = port.protocol in {Protocol.TLS, Protocol.HTTPS}
            if declared and not prefixes:
                continue
            if prefixes or by_name or _is_reached_by_port(service):
                yield from _declared(view, service, port, prefixes)
                origin = of_service(service, f"spec.ports[{index}]")
                yield from _default(view, service, port, prefixes, origin)


def _owned_sockets(view: View) -> frozenset[tuple[str, int]]:
    """Return the addresses that Services of Kubernetes declare, each with its ports; nothing where
    no ServiceEntry could write one of them."""
    if not any(service.addresses for service in view.services.values() if not service.name):
        return frozenset()
    return frozenset(
        (canonical(address), port.number)
        for service in view.services.values()
        if service.name and not service.headless
        for address in service.addresses
        for port in service.ports
        if port.protocol is not Protocol.UDP
    )


def _left_by(
    owned: frozenset[tuple[str, int]], declared: tuple[str, ...], port: int
) -> tuple[str, ...]:
    """Return the addresses and networks of a ServiceEntry that no Service has on this port."""
    if not owned:
        return declared
    return tuple(one for one in declared if (canonical(one), port) not in owned)


def _is_reached_by_port(service: ServiceRecord) -> bool:
    """Return whether a service is recognised by a port that only it has, for it has no address."""
    return service.resolution is Resolution.NONE and not service.headless


def _is_reached_by_name(service: ServiceRecord, port: Port) -> bool:
    """Return whether a service is recognised by its server name, at any address.

    Outside Kubernetes, clients may have the address from anywhere.
    """
    return port.protocol in {Protocol.TLS, Protocol.HTTPS} and not service.name


def _default(
    view: View,
    service: ServiceRecord,
    port: Port,
    prefixes: tuple[str, ...],
    origin: Origin | None,
) -> Iterator[OpaqueRoute]:
    target = to_cluster(view.cluster(service.host, port.number), view)
    by_name = port.protocol in {Protocol.TLS, Protocol.HTTPS}
    if prefixes or not by_name:
        sniffed = port.protocol is Protocol.SNIFFED
        yield OpaqueRoute(
            port.number, prefixes, (), target, sniffed=sniffed, origin=origin, is_default=True
        )
    if by_name and (not prefixes or _is_reached_by_name(service, port)):
        names = (service.host,)
        yield OpaqueRoute(
            port.number, (), names, target, only_tls=True, origin=origin, is_default=True
        )


def _declared(
    view: View, service: ServiceRecord, port: Port, prefixes: tuple[str, ...]
) -> Iterator[OpaqueRoute]:
    """Yield the VirtualServices' routes for the port."""
    entrance = Entrance(view.scope, port.number)
    sniffed = port.protocol is Protocol.SNIFFED
    for routed in view.mesh_routings.for_host(service.host):
        routing = routed.at_port(service, port.number)
        for rule in tls_rules(routing, view, entrance):
            route = OpaqueRoute(
                port.number,
                rule.subnets or prefixes,
                rule.server_names,
                rule.target,
                only_tls=True,
                origin=rule.origin,
            )
            yield route
            if route.server_names and not rule.subnets and _is_reached_by_name(service, port):
                yield msgspec.structs.replace(route, prefixes=())
        for rule in tcp_rules(routing, view, entrance):
            subnets = rule.subnets or prefixes
            yield OpaqueRoute(
                port.number, subnets, (), rule.target, sniffed=sniffed, origin=rule.origin
            )
