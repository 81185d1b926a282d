"""Routes of a VirtualService's ``http``, for one entrance."""

from __future__ import annotations

from typing import TypeGuard

import msgspec

from meshd.api.networking import HTTPRetry, HTTPRoute
from meshd.compile.http.delegation import PlacedMatch, PlacedRoute
from meshd.compile.http.route_actions import direct_response, forward, redirect
from meshd.compile.http.route_filters import cors, fault
from meshd.compile.http.route_headers import header_changes
from meshd.compile.http.route_match import Entrance, applicable
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import HeaderChanges, Route
from meshd.compile.visibility.routings import Routing
from meshd.compile.visibility.view import View
from meshd.matching.covering import is_unconditional
from meshd.matching.reading import route_match


def http_routes(routing: Routing, view: View, entrance: Entrance) -> list[Route]:
    """Return the routes in order, up to the first that holds for every request. Empty: there are
    none."""
    routes: list[Route] = []
    for number, route in enumerate(routing.service.spec.http):
        action = None
        for index, match in applicable(route, entrance, routing.namespace):
            action = action or _action(route, view, entrance, routing.namespace)
            if action is None:
                break
            place = _place(routing, number, index if match else None)
            names = (route.name, match.name if match else None)
            made = msgspec.structs.replace(
                action,
                name=".".join(name for name in names if name),
                match=route_match(match),
                statistics=(match.stat_prefix if match else None) or "",
                origin=route.inserted_at if _is_delegates(route) else place,
                delegate=place if _is_delegates(route) else None,
            )
            routes.append(made)
            if is_unconditional(made.match):
                return routes
    return routes


def _is_delegates(route: HTTPRoute) -> TypeGuard[PlacedRoute]:
    """Return whether a route was inserted from a delegate."""
    return isinstance(route, PlacedRoute) and route.place.key != route.inserted_at.key


def _place(routing: Routing, number: int, index: int | None) -> Origin:
    """Return the field that asks for a route: that of its match, where the route has one."""
    service = routing.service
    route = service.spec.http[number]
    if not isinstance(route, PlacedRoute):
        field = f"spec.http[{number}]"
        return Origin(service.key, field if index is None else f"{field}.match[{index}]")
    match = None if index is None else route.match[index]
    # A delegate's route without a match of its own has the root's.
    if isinstance(match, PlacedMatch) and match.place.key == route.place.key:
        return match.place
    return route.place


def _action(route: HTTPRoute, view: View, entrance: Entrance, owner: str) -> Route | None:
    """Return the route but for its match and name; None if it has no action."""
    if route.redirect:
        made = Route(name="", action=redirect(route.redirect, entrance.port))
    elif route.direct_response:
        made = Route(name="", action=direct_response(route.direct_response))
    elif route.route:
        made = forward(route, view, entrance, owner)
    else:
        return None
    if not route.route or route.redirect or route.direct_response:
        changes = header_changes(route.headers)
        kept = HeaderChanges((), (), changes.response_additions, changes.response_removals)
        made = msgspec.structs.replace(made, changes=kept)
    return msgspec.structs.replace(
        made,
        repeats_idempotent=_repeats_idempotent(route.retries),
        fault=fault(route.fault),
        cors=cors(route.cors_policy),
    )


def _repeats_idempotent(asked: HTTPRetry | None) -> bool:
    """Return whether the mesh decides what to repeat: a route that says what to retry wins."""
    return asked is None or (asked.attempts > 0 and not asked.retry_on)


def unconditional_last(routes: list[Route]) -> tuple[Route, ...]:
    """Return routes of several VirtualServices for one host, those for every request last.

    Only the first of these is kept, since no request reaches another.
    """
    last = [route for route in routes if is_unconditional(route.match)][:1]
    return (*(route for route in routes if not is_unconditional(route.match)), *last)
