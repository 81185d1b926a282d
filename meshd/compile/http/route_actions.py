"""Envoy's actions for an HTTPRoute: route, redirect, direct response.

After https://istio.io/latest/docs/reference/config/networking/virtual-service/.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from envoy.type.matcher.v3 import regex_pb2

from meshd.api.traffic import (
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
from meshd.compile.envoy.wellknown import packed, seconds
from meshd.compile.http.idempotence import NOT_SENT
from meshd.compile.http.mirroring import mirror_policy
from meshd.compile.http.route_filters import asked_percentage, fraction
from meshd.compile.http.route_headers import header_changes, new_host
from meshd.compile.http.route_match import Entrance
from meshd.compile.names import OutboundCluster
from meshd.compile.upstream.dynamic_dns import looked_up
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.compile.visibility import View

_Route = route_components_pb2.Route
_Action = route_components_pb2.RouteAction
_Retry = route_components_pb2.RetryPolicy
_Redirect = route_components_pb2.RedirectAction
_CODES: Final = {
    301: _Redirect.MOVED_PERMANENTLY,
    302: _Redirect.FOUND,
    303: _Redirect.SEE_OTHER,
    307: _Redirect.TEMPORARY_REDIRECT,
    308: _Redirect.PERMANENT_REDIRECT,
}
_RETRIES: Final = 2
_RETRY_ON: Final = (
    "connect-failure,refused-stream,reset-before-request,unavailable,cancelled,retriable-headers"
)
"""Istio's default, and what is known not to have reached the application: its own 503 is
an answer like any other."""
_HOST_SELECTION_ATTEMPTS: Final = 5


def to_cluster(
    cluster: OutboundCluster, hashing: ConsistentHash | None = None
) -> route_components_pb2.RouteAction:
    """Return the action for a host without a VirtualService."""
    return _Action(
        cluster=str(cluster),
        cluster_not_found_response_code=_Action.SERVICE_UNAVAILABLE,
        timeout=seconds(0),
        retry_policy=retry_policy(None, hashing=hashing is not None),
        hash_policy=_hash_policy(hashing),
    )


def redirect(asked: HTTPRedirect, port: int) -> route_components_pb2.RedirectAction:
    # Routes are per port, so the request's is known. The scheme's own is Envoy's default.
    derived = port if asked.derive_port == "FROM_REQUEST_PORT" else None
    return _Redirect(
        host_redirect=asked.authority or None,
        path_redirect=asked.uri or None,
        prefix_rewrite=asked.prefix_rewrite or None,
        scheme_redirect=asked.scheme or None,
        response_code=_CODES.get(asked.redirect_code or 301, _Redirect.MOVED_PERMANENTLY),
        port_redirect=asked.port or derived,
    )


def direct_response(asked: HTTPDirectResponse) -> route_components_pb2.DirectResponseAction:
    body = None
    if asked.body and asked.body.string is not None:
        body = base_pb2.DataSource(inline_string=asked.body.string)
    elif asked.body and asked.body.bytes is not None:
        body = base_pb2.DataSource(inline_bytes=_decoded(asked.body.bytes))
    return route_components_pb2.DirectResponseAction(status=asked.status, body=body)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()


def forward(route: HTTPRoute, view: View, entrance: Entrance, owner: str) -> _Route:
    """Return the part of a route that forwards requests, with headers and filters' settings."""
    places = _weighted(route.route)
    clusters = [view.destination(place.destination, owner, entrance.port) for place in places]
    hashing = [_hashing(view, cluster) for cluster in clusters]
    action = _Action(
        cluster_not_found_response_code=_Action.SERVICE_UNAVAILABLE,
        timeout=seconds(route.timeout or 0),
        retry_policy=retry_policy(route.retries, hashing=any(hashing)),
        hash_policy=[policy for asked in hashing for policy in _hash_policy(asked)],
        request_mirror_policies=_mirrors(route, view, entrance, owner),
    )
    _rewrite(action, route.rewrite)
    if host := new_host(route.headers):
        action.host_rewrite_literal = host
    changes = header_changes(route.headers)
    if len(places) == 1:
        if host := new_host(places[0].headers):
            action.host_rewrite_literal = host
        changes = header_changes(places[0].headers) + changes
        action.cluster = str(clusters[0])
    else:
        action.weighted_clusters.clusters.extend(
            _cluster_weight(place, cluster) for place, cluster in zip(places, clusters, strict=True)
        )
    return _Route(
        route=action,
        typed_per_filter_config=looked_up() if any(map(view.is_looked_up, clusters)) else {},
        request_headers_to_add=changes.request_additions,
        request_headers_to_remove=changes.request_removals,
        response_headers_to_add=changes.response_additions,
        response_headers_to_remove=changes.response_removals,
    )


def _weighted(places: tuple[HTTPRouteDestination, ...]) -> tuple[HTTPRouteDestination, ...]:
    """Return the destinations that get requests; if none has a weight, each gets the same."""
    chosen = tuple(place for place in places if place.weight)
    return chosen or places


def _cluster_weight(
    place: HTTPRouteDestination, cluster: OutboundCluster
) -> route_components_pb2.WeightedCluster.ClusterWeight:
    changes = header_changes(place.headers)
    return route_components_pb2.WeightedCluster.ClusterWeight(
        name=str(cluster),
        weight={"value": place.weight or 1},
        host_rewrite_literal=new_host(place.headers) or None,
        request_headers_to_add=changes.request_additions,
        request_headers_to_remove=changes.request_removals,
        response_headers_to_add=changes.response_additions,
        response_headers_to_remove=changes.response_removals,
    )


def _rewrite(action: route_components_pb2.RouteAction, rewrite: HTTPRewrite | None) -> None:
    """Return a rewrite: of a matched prefix, or of a whole path that matched exactly or by
    regex."""
    if rewrite is None:
        return
    if rewrite.uri_regex_rewrite:
        action.regex_rewrite.CopyFrom(
            regex_pb2.RegexMatchAndSubstitute(
                pattern=regex_pb2.RegexMatcher(regex=rewrite.uri_regex_rewrite.match),
                substitution=rewrite.uri_regex_rewrite.rewrite,
            )
        )
    elif rewrite.uri:
        action.prefix_rewrite = rewrite.uri
    if rewrite.authority:
        action.host_rewrite_literal = rewrite.authority


def retry_policy(asked: HTTPRetry | None, *, hashing: bool = False) -> _Retry | None:
    """Return two retries unless the route says otherwise; None: no retries.

    A retry goes to another endpoint, except where a hash decides on the endpoint, or the route says
    that it need not.
    """
    if asked is not None and asked.attempts <= 0:
        return None
    policy = _retry_on(asked.retry_on if asked else None)
    policy.num_retries.value = asked.attempts if asked else _RETRIES
    if not hashing and not (asked and asked.retry_ignore_previous_hosts is False):
        policy.retry_host_predicate.add(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
        )
        policy.host_selection_retry_max_attempts = _HOST_SELECTION_ATTEMPTS
    if asked and asked.per_try_timeout:
        policy.per_try_timeout.CopyFrom(seconds(asked.per_try_timeout))
    if asked and asked.backoff:
        # Envoy takes ten times the base for the longest wait.
        policy.retry_back_off.base_interval.CopyFrom(seconds(asked.backoff))
    if asked and asked.retry_remote_localities:
        policy.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        policy.retry_priority.typed_config.CopyFrom(
            packed(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=2))
        )
    return policy


def _retry_on(text: str | None) -> _Retry:
    """Return conditions, and status codes that users list among them."""
    if not text:
        unsent = route_components_pb2.HeaderMatcher(name=NOT_SENT, present_match=True)
        return _Retry(retry_on=_RETRY_ON, retriable_headers=[unsent])
    parts = [part.strip() for part in text.split(",") if part.strip()]
    codes = [int(part) for part in parts if part.isdecimal()]
    conditions = [part for part in parts if not part.isdecimal()]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return _Retry(retry_on=",".join(conditions), retriable_status_codes=codes)


def _mirrors(
    route: HTTPRoute, view: View, entrance: Entrance, owner: str
) -> list[_Action.RequestMirrorPolicy]:
    """Return copies of requests whose answers are dropped."""
    old = asked_percentage(route.mirror_percentage, route.mirror_percent, 100.0)
    asked: list[tuple[Destination, Percent]] = [
        (mirror.destination, mirror.percentage or Percent(value=100.0)) for mirror in route.mirrors
    ]
    if route.mirror:
        asked.append((route.mirror, Percent(value=old)))
    copies = view.of_copies()
    targets = [
        (copies.destination(destination, owner, entrance.port), percentage.value)
        for destination, percentage in asked
        if percentage.value > 0
    ]
    return [
        mirror_policy(cluster, fraction(percentage), looked_up=view.is_looked_up(cluster))
        for cluster, percentage in targets
    ]


def _hashing(view: View, cluster: OutboundCluster) -> ConsistentHash | None:
    return effective_policy(view.rules(cluster.host), cluster.port, cluster.subset).consistent_hash


def _hash_policy(asked: ConsistentHash | None) -> Iterable[_Action.HashPolicy]:
    """Yield what of a request decides on the endpoint."""
    policy = _Action.HashPolicy
    if asked is None:
        return
    if asked.http_header_name:
        yield policy(header=policy.Header(header_name=asked.http_header_name))
    elif asked.http_cookie:
        cookie = asked.http_cookie
        yield policy(
            cookie=policy.Cookie(
                name=cookie.name,
                path=cookie.path or "",
                ttl=None if cookie.ttl is None else seconds(cookie.ttl),
                attributes=[
                    policy.CookieAttribute(name=one.name, value=one.value or "")
                    for one in cookie.attributes
                ],
            )
        )
    elif asked.use_source_ip:
        yield policy(connection_properties=policy.ConnectionProperties(source_ip=True))
    elif asked.http_query_parameter_name:
        yield policy(query_parameter=policy.QueryParameter(name=asked.http_query_parameter_name))
