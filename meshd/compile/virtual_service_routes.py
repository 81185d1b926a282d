"""A VirtualService's ``http`` → Envoy routes, for one entrance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2

from meshd.compile.route_actions import direct_response, forward, redirect
from meshd.compile.route_filters import filter_settings
from meshd.compile.route_headers import header_fields
from meshd.compile.route_match import Entrance, applicable, is_unconditional, route_match
from meshd.compile.visibility import Routing, View
from meshd.model.traffic import HTTPMatchRequest, HTTPRoute


def http_routes(routing: Routing, view: View, entrance: Entrance) -> list[Any]:
    """In order, up to the first that holds for every request. Empty: it says nothing here."""
    routes: list[Any] = []
    for route in routing.service.spec.http:
        action = None
        for match in applicable(route, entrance, routing.namespace):
            action = action or _action(route, view, entrance, routing.namespace)
            if not action:
                break
            routes.append(_route(route, match, action, routing))
            if is_unconditional(routes[-1].match):
                return routes
    return routes


def _route(
    route: HTTPRoute, match: HTTPMatchRequest | None, action: dict[str, Any], routing: Routing
) -> Any:
    names = (route.name, match.name if match else None)
    settings = filter_settings(route) | action.get("typed_per_filter_config", {})
    return route_components_pb2.Route(
        name=".".join(name for name in names if name),
        match=route_match(match),
        stat_prefix=(match.stat_prefix if match else None) or "",
        metadata=_origin(route, routing),
        **{**action, "typed_per_filter_config": settings},
    )


def _action(route: HTTPRoute, view: View, entrance: Entrance, owner: str) -> dict[str, Any]:
    """Fields of the Envoy route for what is done; nothing: the route says nothing to do."""
    if route.redirect:
        return {
            "redirect": redirect(route.redirect, entrance.port),
            **_response_headers(route),
        }
    if route.direct_response:
        return {
            "direct_response": direct_response(route.direct_response),
            **_response_headers(route),
        }
    return forward(route, view, entrance, owner) if route.route else {}


def _response_headers(route: HTTPRoute) -> dict[str, Any]:
    return {
        name: values
        for name, values in header_fields(route.headers).items()
        if name.startswith("response_")
    }


def _origin(route: HTTPRoute, routing: Routing) -> Any:
    """Metadata that says which object made the route, as in Istio, and which delegate."""
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


def unconditional_last(routes: list[Any]) -> list[Any]:
    """Routes of several VirtualServices for one host: those for every request behind the others,
    and only the first of them, since no request reaches another."""

    def ordered() -> Iterator[Any]:
        yield from (route for route in routes if not is_unconditional(route.match))
        yield from [route for route in routes if is_unconditional(route.match)][:1]

    return list(ordered())
