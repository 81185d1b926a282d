"""Prints what becomes of copies of requests (``mirror``) behind their internal listener.

Headers say where a copy goes and whose it is. They become filter state and are taken off. A copy of
which they do not say whose it is, and from where it is to be sent, goes nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy import dynamic_dns, filter_state
from meshd.compile.envoy.copy_headers import (
    DESTINATION,
    HEADERS,
    HOST,
    IDENTITY,
    LOOKED_UP,
    NETNS,
    PROVIDER,
    STATES,
)
from meshd.compile.envoy.http_connections import ROUTER, base_manager
from meshd.compile.envoy.wellknown import (
    ONCE,
    filter_,
    over_ads,
    packed,
    seconds,
    state_value,
)
from meshd.compile.plan.chains import Copies

_IDLE: Final = 60.0
"""Seconds for which a copy may stand still."""

_Route = route_components_pb2.Route
_Header = route_components_pb2.HeaderMatcher
_NOBODY: Final = _Route(
    name="nobody",
    match=route_components_pb2.RouteMatch(prefix="/"),
    direct_response=route_components_pb2.DirectResponseAction(status=503),
)
"""The route of what says not whose it is."""


def copies_manager(target: Copies) -> listener_components_pb2.Filter:
    """Return the manager of copies, which were judged when they came and are sent unchanged."""
    router = packed(router_pb2.Router())
    manager = http_connection_manager_pb2.HttpConnectionManager(
        stat_prefix=target.name,
        http_filters=[
            _state_filter(),
            dynamic_dns.http_filter(),
            http_connection_manager_pb2.HttpFilter(name=ROUTER, typed_config=router),
        ],
        forward_client_cert_details="ALWAYS_FORWARD_ONLY",
        preserve_external_request_id=True,
    )
    manager.MergeFrom(base_manager(target.access_log))
    if target.routes:
        manager.rds.config_source.CopyFrom(over_ads())
        manager.rds.route_config_name = target.routes
    else:
        manager.route_config.CopyFrom(_table(target.name, _routes()))
    # They are as their upstream is to receive them: what a rewrite has put in stays.
    manager.normalize_path.value = manager.strip_trailing_host_dot = False
    return filter_("envoy.filters.network.http_connection_manager", manager)


def _state_filter() -> http_connection_manager_pb2.HttpFilter:
    values = (state_value(state, f"%REQ({name})%", ONCE) for state, name in STATES.items())
    noted = filter_state.keyed(values, ONCE, first=True)
    return http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.set_filter_state",
        typed_config=packed(set_filter_state_pb2.Config(on_request_headers=noted)),
    )


def provider_table(name: str, upstreams: Iterable[tuple[str, str]]) -> route_pb2.RouteConfiguration:
    """Return the table by which questions go to extension providers; ``upstreams``: that of each
    provider, by its name. A table of its own closes no connection when it changes."""
    routes = (
        _to_provider([_is_there(IDENTITY), _is_there(place), _is(PROVIDER, provider)], upstream)
        for provider, upstream in upstreams
        for place in (NETNS, HOST)
    )
    return _table(name, [*routes, _NOBODY])


def _table(name: str, routes: Iterable[_Route]) -> route_pb2.RouteConfiguration:
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=routes)
    return route_pb2.RouteConfiguration(
        name=name, virtual_hosts=[host], validate_clusters={"value": False}
    )


def _routes() -> Iterator[_Route]:
    """Yield routes from the client's namespace or, for a service of the host, the host's own."""
    for place in (NETNS, HOST):
        whose = [_is_there(IDENTITY), _is_there(place)]
        yield _onward([*whose, _is_there(LOOKED_UP)], dynamic_dns.looked_up())
        yield _onward(whose, {})
    yield _NOBODY


def _onward(headers: list[_Header], settings: Mapping[str, any_pb2.Any]) -> _Route:
    action = route_components_pb2.RouteAction(
        cluster_header=DESTINATION,
        cluster_not_found_response_code=route_components_pb2.RouteAction.SERVICE_UNAVAILABLE,
        timeout=seconds(0),
        idle_timeout=seconds(_IDLE),
    )
    return _Route(
        name="mirror",
        match=route_components_pb2.RouteMatch(prefix="/", headers=headers),
        route=action,
        request_headers_to_remove=HEADERS,
        typed_per_filter_config=settings,
    )


def _to_provider(headers: list[_Header], upstream: str) -> _Route:
    made = _onward(headers, {})
    made.route.cluster = upstream  # in place of the header
    # Whoever asks waits no longer than it is set to.
    made.route.ClearField("idle_timeout")
    return made


def _is(name: str, text: str) -> _Header:
    return _Header(name=name, string_match=string_pb2.StringMatcher(exact=text))


def _is_there(name: str) -> _Header:
    return _Header(name=name, present_match=True)
