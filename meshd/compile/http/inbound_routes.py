"""The server's side of HTTP: every request goes on to the application, with the caller's name.

``x-forwarded-client-cert`` says who called. Whatever the caller wrote there is replaced, since any
workload of the mesh can open a connection of its own. A gateway may say who its client was: its
proxy has written that, and the gateway's own element comes after it. Gateways are known by their
identities, and these are in routes, which come and go without a connection being closed.

A client's proxy does not repeat a request that an application may have seen. So a request that may
be made twice is repeated here when the application's connection ends before the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.type.matcher.v3 import filter_state_pb2, regex_pb2, string_pb2

from meshd.compile.envoy.wellknown import CLIENT_CERTIFICATE_STATE, PEER_STATE, seconds
from meshd.compile.http.idempotence import METHODS, NOT_SENT
from meshd.compile.names import InboundCluster
from meshd.model.workload import Identity

CLIENT_CERTIFICATE: Final = "x-forwarded-client-cert"
_Option: Final = base_pb2.HeaderValueOption
_Route = route_components_pb2.Route
_RETRIES: Final = 2


def plain_routes(cluster: InboundCluster) -> route_pb2.RouteConfiguration:
    """Return routes for callers without a certificate."""
    return _configuration(cluster, _routes(cluster, "default"))


def certified_routes(
    cluster: InboundCluster, gateways: Iterable[Identity]
) -> route_pb2.RouteConfiguration:
    """Return routes for callers with a certificate of the mesh."""
    names = [identity.uri for identity in gateways]
    routes = _routes(cluster, "default", headers=[_named(_Option.OVERWRITE_IF_EXISTS_OR_ADD)])
    if names:
        appended = [_named(_Option.APPEND_IF_EXISTS_OR_ADD)]
        routes = [*_routes(cluster, "gateway", callers=names, headers=appended), *routes]
    return _configuration(cluster, routes)


def _configuration(
    cluster: InboundCluster, routes: Sequence[_Route]
) -> route_pb2.RouteConfiguration:
    host = route_components_pb2.VirtualHost(
        name=f"inbound|{cluster.port}||", domains=["*"], routes=routes
    )
    return route_pb2.RouteConfiguration(
        name=str(cluster),
        virtual_hosts=[host],
        validate_clusters={"value": False},
        # The proxy's own to say, not the application's.
        response_headers_to_remove=[NOT_SENT],
    )


def _routes(
    cluster: InboundCluster,
    name: str,
    *,
    callers: Sequence[str] = (),
    headers: Sequence[base_pb2.HeaderValueOption] = (),
) -> list[_Route]:
    """Return routes; ``callers``: for these alone. ``headers`` are added to the request."""
    retries = route_components_pb2.RetryPolicy(retry_on="reset", num_retries={"value": _RETRIES})
    return [
        route_components_pb2.Route(
            name=name,
            match=route_components_pb2.RouteMatch(
                prefix="/",
                headers=methods,
                filter_state=[_called_by(callers)] if callers else [],
            ),
            route=route_components_pb2.RouteAction(
                cluster=str(cluster), timeout=seconds(0), retry_policy=policy
            ),
            request_headers_to_add=headers,
        )
        for methods, policy in (([_idempotent()], retries), ([], None))
    ]


def _idempotent() -> route_components_pb2.HeaderMatcher:
    matcher = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex="|".join(METHODS)))
    return route_components_pb2.HeaderMatcher(name=":method", string_match=matcher)


def _called_by(names: Sequence[str]) -> filter_state_pb2.FilterStateMatcher:
    regex = "|".join(map(re.escape, names))
    return filter_state_pb2.FilterStateMatcher(
        key=PEER_STATE,
        string_match=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex)),
    )


def _named(
    action: base_pb2.HeaderValueOption.HeaderAppendAction,
) -> base_pb2.HeaderValueOption:
    """Adds the caller's element to the header, or puts it in its place."""
    element = base_pb2.HeaderValue(
        key=CLIENT_CERTIFICATE, value=f"%FILTER_STATE({CLIENT_CERTIFICATE_STATE}:PLAIN)%"
    )
    return _Option(header=element, append_action=action)
