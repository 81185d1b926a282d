"""The VirtualServices in force: with their delegates' routes inserted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from meshd.api.base import Key
from meshd.api.hosts import resolve
from meshd.api.networking import (
    Destination,
    HTTPMatchRequest,
    HTTPMirrorPolicy,
    HTTPRoute,
    HTTPRouteDestination,
    VirtualService,
)
from meshd.api.virtual_service.delegation import (
    delegate_key,
    merge_route,
    why_not,
    with_full_gateways,
)
from meshd.compile.plan.origin import Origin
from meshd.model.snapshot import Snapshot


class PlacedMatch(HTTPMatchRequest, frozen=True, kw_only=True):
    """A match that knows where it was written."""

    place: Origin


class PlacedRoute(HTTPRoute, frozen=True, kw_only=True):
    """A route of a root that delegates: its index in the list is not that in any object."""

    place: Origin
    """Where it was written: in the root or in its delegate."""
    inserted_at: Origin
    """The field of the root that the route is, or that delegates to it."""


Delegates = Mapping[Key, VirtualService]


def delegated(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with the VirtualServices that are in force, in their order.

    A route whose delegate is missing, or not exported to the root's namespace, is left out, and the
    others go on.
    """
    found = snapshot.virtual_services
    delegates = {service.key: service for service in found if service.is_delegate}
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
        msgspec.structs.replace(merged, inserted_at=place.place)
        for place in _placed(root)
        for merged in _merged(place, root, delegates, snapshot)
    )
    spec = msgspec.structs.replace(root.spec, http=routes)
    return msgspec.structs.replace(root, spec=spec)


def _placed(service: VirtualService) -> Iterator[PlacedRoute]:
    """Yield the routes of an object, with their places."""
    for number, route in enumerate(service.spec.http):
        place = Origin(service.key, f"spec.http[{number}]")
        made = PlacedRoute(**msgspec.structs.asdict(route), place=place, inserted_at=place)
        matches = tuple(
            PlacedMatch(
                **msgspec.structs.asdict(match),
                place=Origin(service.key, f"{place.field}.match[{index}]"),
            )
            for index, match in enumerate(route.match)
        )
        yield msgspec.structs.replace(made, match=matches)


def _merged(
    route: PlacedRoute, root: VirtualService, delegates: Delegates, snapshot: Snapshot
) -> Iterator[PlacedRoute]:
    if route.delegate is None:
        yield route
        return
    client = root.metadata.namespace
    key = delegate_key(route.delegate, client)
    owner, delegate = key.namespace, delegates.get(key)
    if delegate is None or why_not(delegate, key, client):
        return
    wide = _qualified(route, client, snapshot)
    for narrow in _placed(delegate):
        if narrow.delegate is None and (
            merged := merge_route(wide, _qualified(narrow, owner, snapshot))
        ):
            yield merged


def _qualified(route: PlacedRoute, owner: str, snapshot: Snapshot) -> PlacedRoute:
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
        match=tuple(with_full_gateways(match, owner) for match in route.match),
        route=tuple(place(one) for one in route.route),
        mirror=full(route.mirror) if route.mirror else None,
        mirrors=tuple(copy(one) for one in route.mirrors),
    )
