"""The actions for an HTTPRoute: route, redirect, direct response.

After https://istio.io/latest/docs/reference/config/networking/virtual-service/.
"""

from __future__ import annotations

import base64
from typing import Final

from meshd.api.networking import (
    ConsistentHash,
    Destination,
    HTTPDirectResponse,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    Percent,
)
from meshd.compile.http.route_filters import asked_percentage, is_some
from meshd.compile.http.route_headers import header_changes, new_host
from meshd.compile.http.route_match import Entrance
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.routes import (
    NO_CHANGES,
    DirectResponse,
    Forward,
    Hashing,
    Mirror,
    Redirect,
    RegexRewrite,
    Retries,
    Route,
    Target,
)
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.compile.visibility.view import View

_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_RETRIES: Final = 2
_RETRY_ON: Final = (
    "connect-failure,refused-stream,reset-before-request,unavailable,cancelled,retriable-headers"
)
"""Istio's default, and what is known not to have reached the application: its own 503 is
an answer like any other."""


def to_cluster(cluster: OutboundCluster, hashing: ConsistentHash | None = None) -> Forward:
    """Return the action for a host without a VirtualService."""
    return Forward(
        targets=(Target(str(cluster)),),
        retries=retries(None, hashing=hashing is not None),
        hashing=_hashing(hashing),
    )


def redirect(asked: HTTPRedirect, port: int) -> Redirect:
    # Routes are per port, so the request's is known. The scheme's own is the proxy's default.
    derived = port if asked.derive_port == "FROM_REQUEST_PORT" else 0
    return Redirect(
        status=asked.redirect_code if asked.redirect_code in _STATUSES else 301,
        host=asked.authority or "",
        path=asked.uri or "",
        prefix=asked.prefix_rewrite or "",
        scheme=asked.scheme or "",
        port=asked.port or derived,
    )


def direct_response(asked: HTTPDirectResponse) -> DirectResponse:
    body = None
    if asked.body and asked.body.string is not None:
        body = asked.body.string
    elif asked.body and asked.body.bytes is not None:
        body = _decoded(asked.body.bytes)
    return DirectResponse(asked.status, body)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


def forward(route: HTTPRoute, view: View, entrance: Entrance, owner: str) -> Route:
    """Return a route that forwards requests, but for its name, match and filters."""
    indices = _weighted(route.route)
    places = [route.route[index] for index in indices]
    clusters = [view.destination(place.destination, owner, entrance.port) for place in places]
    asked = [_asked_hashing(view, cluster) for cluster in clusters]
    rewrite = route.rewrite or HTTPRewrite()
    changes, host = header_changes(route.headers), new_host(route.headers) or rewrite.authority
    if len(places) == 1:
        # As in Istio: a single destination's headers come last, and its host counts where the route
        # sets none, as it does among several.
        host = host or new_host(places[0].headers)
        changes += header_changes(places[0].headers)
        targets = (Target(str(clusters[0]), index=indices[0]),)
    else:
        targets = tuple(map(_target, places, clusters, indices))
    regex = rewrite.uri_regex_rewrite
    action = Forward(
        targets=targets,
        timeout=route.timeout or 0,
        retries=retries(route.retries, hashing=any(asked)),
        hashing=tuple(part for each in asked for part in _hashing(each)),
        mirrors=_mirrors(route, view, entrance, owner),
        host=host or "",
        prefix_rewrite="" if regex else rewrite.uri or "",
        regex_rewrite=RegexRewrite(regex.match, regex.rewrite) if regex else None,
    )
    looks_up = any(map(view.is_looked_up, clusters))
    return Route(name="", action=action, changes=changes, looks_up=looks_up)


def _weighted(places: tuple[HTTPRouteDestination, ...]) -> tuple[int, ...]:
    """Return which destinations get requests; if none has a weight, each gets the same."""
    chosen = tuple(index for index, place in enumerate(places) if place.weight)
    return chosen or tuple(range(len(places)))


def _target(place: HTTPRouteDestination, cluster: OutboundCluster, index: int) -> Target:
    changes = header_changes(place.headers) if place.headers else NO_CHANGES
    return Target(str(cluster), place.weight or 1, new_host(place.headers), changes, index)


def retries(asked: HTTPRetry | None, *, hashing: bool = False) -> Retries | None:
    """Return two retries unless the route says otherwise; None: no retries.

    A retry goes to another endpoint, except where a hash decides on the endpoint, or the route says
    that it need not.
    """
    if asked is None:
        conditions, codes = _conditions(None)
        return Retries(
            attempts=_RETRIES,
            conditions=conditions,
            status_codes=codes,
            not_sent=True,
            elsewhere=not hashing,
        )
    if asked.attempts <= 0:
        return None
    conditions, codes = _conditions(asked.retry_on)
    return Retries(
        attempts=asked.attempts,
        conditions=conditions,
        status_codes=codes,
        not_sent=not asked.retry_on,
        elsewhere=not hashing and asked.retry_ignore_previous_hosts is not False,
        other_localities=bool(asked.retry_remote_localities),
        per_try_timeout=asked.per_try_timeout,
        backoff=asked.backoff,
    )


def _conditions(text: str | None) -> tuple[str, tuple[int, ...]]:
    """Return conditions, and status codes that users list among them."""
    if not text:
        return _RETRY_ON, ()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    codes = tuple(int(part) for part in parts if part.isdecimal())
    conditions = [part for part in parts if not part.isdecimal()]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return ",".join(conditions), codes


def _mirrors(route: HTTPRoute, view: View, entrance: Entrance, owner: str) -> tuple[Mirror, ...]:
    """Return copies of requests whose answers are dropped."""
    old = asked_percentage(route.mirror_percentage, route.mirror_percent, 100.0)
    asked: list[tuple[Destination, Percent]] = [
        (mirror.destination, mirror.percentage or Percent(value=100.0)) for mirror in route.mirrors
    ]
    if route.mirror:
        asked.append((route.mirror, Percent(value=old)))
    if not asked:
        return ()
    copies = view.of_copies()
    targets = [
        (copies.destination(destination, owner, entrance.port), percentage.value)
        for destination, percentage in asked
        if is_some(percentage.value)
    ]
    return tuple(
        Mirror(str(cluster), percentage, view.is_looked_up(cluster))
        for cluster, percentage in targets
    )


def _asked_hashing(view: View, cluster: OutboundCluster) -> ConsistentHash | None:
    return effective_policy(view.rules(cluster.host), cluster.port, cluster.subset).consistent_hash


def _hashing(asked: ConsistentHash | None) -> tuple[Hashing, ...]:
    """Return what of a request decides on the endpoint."""
    if asked is None:
        return ()
    if asked.http_header_name:
        return (Hashing(by="header", name=asked.http_header_name),)
    if cookie := asked.http_cookie:
        attributes = tuple((each.name, each.value or "") for each in cookie.attributes)
        path, ttl = cookie.path or "", cookie.ttl
        return (Hashing(by="cookie", name=cookie.name, path=path, ttl=ttl, attributes=attributes),)
    if asked.use_source_ip:
        return (Hashing(by="address"),)
    if asked.http_query_parameter_name:
        return (Hashing(by="query", name=asked.http_query_parameter_name),)
    return ()
