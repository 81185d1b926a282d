"""Second names of fields of Istio's API. Pure."""

from __future__ import annotations

from meshd.api.base import Object
from meshd.api.networking import VirtualService
from meshd.base.json_values import Json, JsonObject


def renamed(kind: type[Object], value: JsonObject) -> JsonObject:
    """Rename fields: ``mirror_percent`` is in Istio's schema beside ``mirrorPercent``.

    If an object has both, the second name stays, and is reported as an unknown field.
    """
    spec = value.get("spec") if kind is VirtualService else None
    if not isinstance(spec, dict) or not isinstance(routes := spec.get("http"), list):
        return value
    return {**value, "spec": {**spec, "http": [_route(route) for route in routes]}}


def _route(route: Json) -> Json:
    if not isinstance(route, dict) or "mirror_percent" not in route or "mirrorPercent" in route:
        return route
    names = {"mirror_percent": "mirrorPercent"}
    return {names.get(key, key): part for key, part in route.items()}
