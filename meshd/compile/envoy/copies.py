"""Prints what becomes of copies of requests (``mirror``) behind their internal listener.

Headers say where a copy goes and whose it is. They become filter state and are taken off. A copy of
which they do not say whose it is, and from where it is to be sent, goes nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from google.protobuf import any_pb2

from meshd.compile.envoy import dynamic_dns, filter_state
from meshd.compile.envoy.http_connections import ROUTER, base_manager
from meshd.compile.envoy.wellknown import (
    CALLER_STATE,
    HOST_STATE,
    NETNS_STATE,
    ONCE,
    SECRET_STATE,
    SOURCE_STATE,
    WORKLOAD_STATE,
    filter_,
    packed,
    seconds,
    state_value,
)
from meshd.compile.plan.chains import Copies

DESTINATION: Final = "x-meshd-copy-to"
LOOKED_UP: Final = "x-meshd-copy-looked-up"
_IDENTITY: Final = "x-meshd-copy-identity"
_NETNS: Final = "x-meshd-copy-netns"
_HOST: Final = "x-meshd-copy-host"
STATES: Final = {
    SECRET_STATE: _IDENTITY,
    NETNS_STATE: _NETNS,
    HOST_STATE: _HOST,
    WORKLOAD_STATE: "x-meshd-copy-workload",
    CALLER_STATE: "x-meshd-copy-caller",
    SOURCE_STATE: "x-meshd-copy-source",
}
"""Filter state that goes along, and the header that has it meanwhile."""
HEADERS: Final = (DESTINATION, LOOKED_UP, *STATES.values())
_IDLE: Final = 60.0
"""Seconds for which a copy may stand still."""

_Route = route_components_pb2.Route
_Header = route_components_pb2.HeaderMatcher


def copies_manager(target: Copies) -> listener_components_pb2.Filter:
    """Return the manager of copies, which were judged when they came and are sent unchanged."""
    host = route_components_pb2.VirtualHost(name=target.name, domains=["*"], routes=_routes())
    routes = route_pb2.RouteConfiguration(
        name=target.name, virtual_hosts=[host], validate_clusters={"value": False}
    )
    router = packed(router_pb2.Router())
    manager = http_connection_manager_pb2.HttpConnectionManager(
        stat_prefix=target.name,
        route_config=routes,
        http_filters=[
            _state_filter(),
            dynamic_dns.http_filter(),
            http_connection_manager_pb2.HttpFilter(name=ROUTER, typed_config=router),
        ],
        forward_client_cert_details="ALWAYS_FORWARD_ONLY",
        preserve_external_request_id=True,
    )
    manager.MergeFrom(base_manager(target.access_log))
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


def _routes() -> Iterator[_Route]:
    """Yield routes from the client's namespace or, for a service of the host, the host's own."""
    for place in (_NETNS, _HOST):
        whose = [_is_there(_IDENTITY), _is_there(place)]
        yield _onward([*whose, _is_there(LOOKED_UP)], dynamic_dns.looked_up())
        yield _onward(whose, {})
    yield _Route(
        name="nobody",
        match=route_components_pb2.RouteMatch(prefix="/"),
        direct_response=route_components_pb2.DirectResponseAction(status=503),
    )


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


def _is_there(name: str) -> _Header:
    return _Header(name=name, present_match=True)
