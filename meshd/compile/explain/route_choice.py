"""Chooses the route of a request in a route table, as the proxy would. Pure.

The proxy normalizes a path before it looks for a route.
"""

from __future__ import annotations

import re
from typing import Final

from meshd.compile.plan.routes import (
    NO_SERVICE,
    Addresses,
    DirectResponse,
    Forward,
    Route,
    RouteTable,
    VirtualHost,
)
from meshd.matching.fitting import fits
from meshd.matching.request import Request

_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile("[A-Za-z0-9._~-]")


def choose_host(table: RouteTable, request: Request) -> VirtualHost | None:
    """Choose a virtual host: exact domains first, then the longest wildcard, then ``*``, without
    the port."""
    host = _without_port(_without_dot(request.host).lower())
    best: tuple[int, VirtualHost] | None = None
    for virtual_host in table.hosts:
        for domain in virtual_host.domains:
            if domain == host:
                return virtual_host
            is_wild = domain == "*" or (domain.startswith("*") and host.endswith(domain[1:]))
            if is_wild and (best is None or len(domain) > best[0]):
                best = (len(domain), virtual_host)
    return best[1] if best else None


def choose_route(virtual_host: VirtualHost, request: Request) -> Route | None:
    """Return the route by the connection's destination, or the first that matches."""
    if not request.scheme:
        return None
    if (chosen := _by_destination(virtual_host.addresses, request.destination)) is not None:
        return chosen
    seen = normalized(request)
    return next((route for route in virtual_host.routes if fits(route.match, seen)), None)


def normalized(request: Request) -> Request:
    """Return a request as the proxy reads it."""
    path, mark, query = request.path.partition("?")
    return request.with_(host=_without_dot(request.host), path=_normalized(path) + mark + query)


def _by_destination(addresses: Addresses | None, destination: str) -> Route | None:
    if addresses is None:
        return None
    if (route := dict(addresses.routes).get(destination)) is not None:
        return route
    if addresses.refused and destination.removeprefix("[").startswith(addresses.refused):
        return Route(name=NO_SERVICE, action=DirectResponse(addresses.status))
    return None


def _without_dot(host: str) -> str:
    """Return the host as the proxy reads it: without the dot of a full name."""
    name, colon, port = host.partition(":")
    return name.removesuffix(".") + colon + port


def _normalized(path: str) -> str:
    """Return the path as the proxy reads it: what needs no escape has none, and ``.`` and ``..``
    are resolved (RFC 3986, section 6.2.2). Repeated slashes stay."""
    plain = _ESCAPE.sub(_unescaped, path.replace("\\", "/"))
    if not plain.startswith("/"):
        return plain
    kept: list[str] = []
    parts = plain[1:].split("/")
    for part in parts:
        if part == ".." and kept:
            kept.pop()
        elif part not in {".", ".."}:
            kept.append(part)
    if parts[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def describe(route: Route) -> str:
    """Describe a route: its object, and what it does beside forwarding."""
    parts = [route.name or "unnamed"]
    if route.origin:
        parts.append(f"of {route.origin.key}, {route.origin.field}")
    if route.delegate:
        parts.append(f"from its delegate {route.delegate}")
    if isinstance(route.action, Forward) and route.action.timeout:
        parts.append(f"timeout {route.action.timeout:g} s")
    parts += [f"with {name}" for name in ("cors", "fault") if getattr(route, name)]
    return ", ".join(parts)
