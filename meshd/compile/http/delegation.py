"""The VirtualServices in force: with their delegates' routes inserted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from meshd.api.base import exported
from meshd.api.gateway.types import gateway_name
from meshd.api.traffic import (
    Destination,
    HTTPMirrorPolicy,
    HTTPRoute,
    HTTPRouteDestination,
    VirtualService,
)
from meshd.api.virtual_service.delegation import merge_route
from meshd.compile.hosts import resolve
from meshd.model.snapshot import Snapshot

Delegates = Mapping[tuple[str, str], VirtualService]


def delegated(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with the VirtualServices that are in force, in their order.

    A route whose delegate is missing, or not exported to the root's namespace, is left out, and the
    others go on.
    """
    found = snapshot.virtual_services
    delegates = {
        (service.metadata.namespace, service.metadata.name): service
        for service in found
        if service.is_delegate
    }
    if not any(route.delegate for service in found for route in service.spec.http):
        return snapshot
    services = tuple(
        _with_delegates(service, delegates, snapshot) for service in found if service.spec.hosts
    )
    return msgspec.structs.replace(snapshot, virtual_services=services)


def _with_delegates(
    root: VirtualService, delegates: Delegates, snapshot: Snapshot
) -> VirtualService:
    if not any(route.delegate for route in root.spec.http):
        return root
    routes = tuple(
        merged for route in root.spec.http for merged in _merged(route, root, delegates, snapshot)
    )
    spec = msgspec.structs.replace(root.spec, http=routes)
    return msgspec.structs.replace(root, spec=spec)


def _merged(
    route: HTTPRoute, root: VirtualService, delegates: Delegates, snapshot: Snapshot
) -> Iterator[HTTPRoute]:
    if route.delegate is None:
        yield route
        return
    client = root.metadata.namespace
    owner = route.delegate.namespace or client
    delegate = delegates.get((owner, route.delegate.name))
    if delegate is None or not exported(delegate.spec.export_to, owner, client):
        return
    wide = _qualified(route, client, snapshot)
    for narrow in delegate.spec.http:
        if narrow.delegate is None and (
            merged := merge_route(wide, _qualified(narrow, owner, snapshot))
        ):
            yield merged


def _qualified(route: HTTPRoute, owner: str, snapshot: Snapshot) -> HTTPRoute:
    """Return the route with full names of hosts and gateways, which would otherwise be read as the
    root's."""

    def full(destination: Destination) -> Destination:
        domain, known = snapshot.options.domain, snapshot.services
        host = resolve(destination.host, owner, domain, known)
        return msgspec.structs.replace(destination, host=host)

    def place(one: HTTPRouteDestination) -> HTTPRouteDestination:
        return msgspec.structs.replace(one, destination=full(one.destination))

    def copy(one: HTTPMirrorPolicy) -> HTTPMirrorPolicy:
        return msgspec.structs.replace(one, destination=full(one.destination))

    delegate = route.delegate
    if delegate and not delegate.namespace:
        delegate = msgspec.structs.replace(delegate, namespace=owner)
    return msgspec.structs.replace(
        route,
        delegate=delegate,
        match=tuple(
            msgspec.structs.replace(
                match, gateways=tuple(gateway_name(name, owner) for name in match.gateways)
            )
            for match in route.match
        ),
        route=tuple(place(one) for one in route.route),
        mirror=full(route.mirror) if route.mirror else None,
        mirrors=tuple(copy(one) for one in route.mirrors),
    )
