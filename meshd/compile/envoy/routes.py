"""Print route tables."""

from __future__ import annotations

import functools
import re
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.type.matcher.v3 import filter_state_pb2, regex_pb2, string_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy import authorization
from meshd.compile.envoy.dynamic_dns import looked_up
from meshd.compile.envoy.idempotence import NOT_SENT, never
from meshd.compile.envoy.matching import always, by_filter_state, to_routes
from meshd.compile.envoy.route_actions import direct_response, forward, header_options, redirect
from meshd.compile.envoy.route_filters import cors, fault
from meshd.compile.envoy.route_matches import route_match
from meshd.compile.envoy.wellknown import LOCAL_ADDRESS_STATE, TABLE_HEADER, packed
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.routes import (
    NO_SERVICE,
    Addresses,
    Forward,
    Redirect,
    Route,
    RouteTable,
    VirtualHost,
)

MAX_DIRECT_RESPONSE: Final = 1024 * 1024
"""Bytes of a direct response's body."""
FAULT_FILTER: Final = "envoy.filters.http.fault"
CORS_FILTER: Final = "envoy.filters.http.cors"

_VirtualHost = route_components_pb2.VirtualHost


def route_table(table: RouteTable) -> route_pb2.RouteConfiguration:
    made = route_settings()
    made.name = table.name
    made.virtual_hosts.extend(virtual_host(host) for host in table.hosts)
    if table.guard is not None:
        _judge(made, table.guard)
    return made


def judged_table(
    found: route_pb2.RouteConfiguration, guard: Authorization
) -> route_pb2.RouteConfiguration:
    """Return a gateway's table with other rules about the gateway."""
    made = route_pb2.RouteConfiguration()
    made.CopyFrom(found)
    made.typed_per_filter_config.clear()
    _judge(made, guard)
    return made


def _judge(made: route_pb2.RouteConfiguration, guard: Authorization) -> None:
    """Write what filters judge by, for the whole table."""
    reroutes = any(one.match.dynamic_metadata for host in made.virtual_hosts for one in host.routes)
    for name, rules in authorization.per_route(guard, inside=False, reroutes=reroutes).items():
        made.typed_per_filter_config[name].CopyFrom(rules)
    for host in made.virtual_hosts:
        if not host.routes or host.routes[-1] != _nothing():
            host.routes.append(_nothing())


@functools.cache
def _nothing() -> route_components_pb2.Route:
    """Return a route for the requests that have no other: filters know by a route what they judge
    by, so that a client that may ask nothing is not told what is there. It is shared."""
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/"),
        direct_response=route_components_pb2.DirectResponseAction(status=404),
    )


def route_settings() -> route_pb2.RouteConfiguration:
    """Return what is the same in all route configurations."""
    return route_pb2.RouteConfiguration(
        # A destination that is not there fails its own requests only.
        validate_clusters={"value": False},
        ignore_port_in_host_matching=True,
        request_headers_to_remove=[TABLE_HEADER],
        response_headers_to_remove=[NOT_SENT],
        max_direct_response_body_size_bytes={"value": MAX_DIRECT_RESPONSE},
    )


def virtual_host(host: VirtualHost) -> _VirtualHost:
    made = _VirtualHost(
        name=host.name,
        domains=host.domains,
        require_tls=_VirtualHost.ALL if host.only_tls else _VirtualHost.NONE,
        include_request_attempt_count=host.counts_attempts,
    )
    routes = [route(each) for each in host.routes]
    if host.addresses is None:
        made.routes.extend(routes)
        return made
    refused = [_refusal(host.addresses)] if host.addresses.refused else []
    rest = to_routes(route_components_pb2.RouteList(routes=[*refused, *routes]))
    ways = {address: to_routes(route(each)) for address, each in host.addresses.routes}
    tree = by_filter_state(LOCAL_ADDRESS_STATE, ways, rest).matcher if ways else always(rest)
    made.matcher.CopyFrom(tree)
    return made


def route(planned: Route) -> route_components_pb2.Route:
    request, response = (
        header_options(planned.changes.request_additions),
        header_options(planned.changes.response_additions),
    )
    made = route_components_pb2.Route(
        name=planned.name,
        match=route_match(planned.match),
        stat_prefix=planned.statistics,
        metadata=_origin(planned),
        typed_per_filter_config=_filters(planned),
        request_headers_to_add=request,
        request_headers_to_remove=planned.changes.request_removals,
        response_headers_to_add=response,
        response_headers_to_remove=planned.changes.response_removals,
    )
    action = planned.action
    if isinstance(action, Forward):
        made.route.CopyFrom(forward(action))
    elif isinstance(action, Redirect):
        made.redirect.CopyFrom(redirect(action))
    else:
        made.direct_response.CopyFrom(direct_response(action))
    return made


def _filters(planned: Route) -> dict[str, any_pb2.Any]:
    filters = {} if planned.repeats_idempotent else never()
    if planned.looks_up:
        filters |= looked_up()
    if planned.fault:
        filters[FAULT_FILTER] = packed(fault(planned.fault))
    if planned.cors:
        filters[CORS_FILTER] = packed(cors(planned.cors))
    return filters


def _origin(planned: Route) -> base_pb2.Metadata | None:
    """Return metadata that names the object of the route, as in Istio, and its delegate."""
    if planned.origin is None:
        return None
    key = planned.origin.key
    names = {
        "config": "/apis/networking.istio.io/v1alpha3/namespaces/"
        f"{key.namespace}/virtual-service/{key.name}"
    }
    if planned.delegate:
        names["delegate"] = f"{planned.delegate.key.namespace}/{planned.delegate.key.name}"
    metadata = base_pb2.Metadata()
    metadata.filter_metadata["istio"].update(names)
    return metadata


def _refusal(addresses: Addresses) -> route_components_pb2.Route:
    begins = "|".join(re.escape(prefix) for prefix in addresses.refused)
    virtual = filter_state_pb2.FilterStateMatcher(
        key=LOCAL_ADDRESS_STATE,
        string_match=string_pb2.StringMatcher(
            safe_regex=regex_pb2.RegexMatcher(regex=rf"\[?({begins}).*")
        ),
    )
    return route_components_pb2.Route(
        name=NO_SERVICE,
        match=route_components_pb2.RouteMatch(prefix="/", filter_state=[virtual]),
        direct_response=route_components_pb2.DirectResponseAction(status=addresses.status),
    )
