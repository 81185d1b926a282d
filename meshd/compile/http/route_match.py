"""The conditions of a route, from an HTTPMatchRequest.

What holds for all requests of a scope on a port (client's labels, port, gateway) is decided here
and leaves no trace in the result.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from meshd.api.gateway.types import MESH, gateway_name
from meshd.api.networking import HTTPMatchRequest, HTTPRoute
from meshd.api.virtual_service.types import is_claim
from meshd.compile.visibility.scope import Match, Scope


class Entrance(msgspec.Struct, frozen=True):
    """The place where requests come in: from which clients, through what, and on which port."""

    scope: Scope
    port: int
    gateways: frozenset[str] = frozenset({MESH})
    """``NAMESPACE/NAME`` of the gateways that share the port, or ``mesh``."""


def applies(match: Match, entrance: Entrance, owner: str) -> bool:
    """Return whether the match can hold at this entrance; ``owner`` is its VirtualService's
    namespace."""
    if match.port and match.port != entrance.port:
        return False
    asks_claims = isinstance(match, HTTPMatchRequest) and any(map(is_claim, match.headers))
    if asks_claims and MESH in entrance.gateways:
        return False  # tokens are read before a route is chosen where requests enter the mesh
    named: Collection[str] = {gateway_name(name, owner) for name in match.gateways}
    if named and not named & entrance.gateways:
        return False
    return entrance.scope.is_source_of(match)


def applicable(
    route: HTTPRoute, entrance: Entrance, owner: str
) -> tuple[tuple[int, HTTPMatchRequest | None], ...]:
    """Return the matches of a route that can hold here, with their places; None stands for all
    requests."""
    if not route.match:
        return ((0, None),)
    return tuple(
        (index, match) for index, match in enumerate(route.match) if applies(match, entrance, owner)
    )
