"""Envoy's routes of a VirtualService's ``http``, for one entrance."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2

from meshd.api.traffic import HTTPMatchRequest, HTTPRoute
from meshd.compile.http.route_actions import direct_response, forward, redirect
from meshd.compile.http.route_filters import filter_settings
from meshd.compile.http.route_headers import header_changes
from meshd.compile.http.route_match import Entrance, applicable, is_unconditional, route_match
from meshd.compile.visibility import Routing, View


def http_routes(
    routing: Routing, view: View, entrance: Entrance
) -> list[route_components_pb2.Route]:
    """Return the routes in order, up to the first that holds for every request. Empty: there are
    none."""
    routes: list[route_components_pb2.Route] = []
    for route in routing.service.spec.http:
        action = None
        for match in applicable(route, entrance, routing.namespace):
            action = action or _action(route, view, entrance, routing.namespace)
            if action is None:
                break
            routes.append(_route(route, match, action, routing))
            if is_unconditional(routes[-1].match):
                return routes
    return routes


def _route(
    route: HTTPRoute,
    match: HTTPMatchRequest | None,
    action: route_components_pb2.Route,
    routing: Routing,
) -> route_components_pb2.Route:
    """Return a route; ``action``: the part for what is done."""
    names = (route.name, match.name if match else None)
    made = route_components_pb2.Route(
        name=".".join(name for name in names if name),
        match=route_match(match),
        stat_prefix=(match.stat_prefix if match else None) or "",
        metadata=_origin(route, routing),
        typed_per_filter_config=filter_settings(route),
    )
    made.MergeFrom(action)
    return made


def _action(
    route: HTTPRoute, view: View, entrance: Entrance, owner: str
) -> route_components_pb2.Route | None:
    """Return the part of the Envoy route for the action; None if the route has none."""
    if not route.redirect and not route.direct_response:
        return forward(route, view, entrance, owner) if route.route else None
    changes = header_changes(route.headers)
    made = route_components_pb2.Route(
        response_headers_to_add=changes.response_additions,
        response_headers_to_remove=changes.response_removals,
    )
    if route.redirect:
        made.redirect.CopyFrom(redirect(route.redirect, entrance.port))
    elif route.direct_response:
        made.direct_response.CopyFrom(direct_response(route.direct_response))
    return made


def _origin(route: HTTPRoute, routing: Routing) -> base_pb2.Metadata:
    """Return metadata that names the object of the route, as in Istio, and its delegate."""
    key = routing.service.key
    metadata = base_pb2.Metadata()
    metadata.filter_metadata["istio"].update(
        {
            "config": "/apis/networking.istio.io/v1alpha3/namespaces/"
            f"{key.namespace}/virtual-service/{key.name}"
        }
    )
    if route.delegate:
        delegate = f"{route.delegate.namespace}/{route.delegate.name}"
        metadata.filter_metadata["istio"].update({"delegate": delegate})
    return metadata


def unconditional_last(
    routes: list[route_components_pb2.Route],
) -> list[route_components_pb2.Route]:
    """Return routes of several VirtualServices for one host, those for every request last.

    Only the first of these is kept, since no request reaches another.
    """

    def ordered() -> Iterator[route_components_pb2.Route]:
        yield from (route for route in routes if not is_unconditional(route.match))
        yield from [route for route in routes if is_unconditional(route.match)][:1]

    return list(ordered())
