"""Copies of requests (``mirror``), which a proxy sends by itself.

Envoy sends them without the filter state of the connection that the request came by: in nobody's
name, and from no namespace. So no copy goes straight to its destination. It goes to an internal
listener, with what the filter state says in headers that replace whatever the client wrote there.
Behind it they become filter state again and are taken off. A copy of which they do not say whose it
is, and from where it is to be sent, goes nowhere.

The listener has no socket, and no other cluster leads there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy import limits
from meshd.compile.envoy.internal import internal_cluster
from meshd.compile.envoy.listeners import chain
from meshd.compile.envoy.wellknown import (
    HASHED,
    HOST_STATE,
    NETNS_STATE,
    ONCE,
    SECRET_STATE,
    UNHASHED,
    WORKLOAD_STATE,
    packed,
    seconds,
    state_value,
)
from meshd.compile.http.connection import copies_manager
from meshd.compile.names import OutboundCluster
from meshd.compile.upstream import dynamic_dns
from meshd.model.snapshot import MeshOptions

MIRROR: Final = "mirror"
"""Of the internal listener, and of the cluster that leads there."""
_DESTINATION: Final = "x-meshd-copy-to"
_LOOKED_UP: Final = "x-meshd-copy-looked-up"
_IDENTITY: Final = "x-meshd-copy-identity"
_NETNS: Final = "x-meshd-copy-netns"
_HOST: Final = "x-meshd-copy-host"
_STATES: Final = {
    SECRET_STATE: _IDENTITY,
    NETNS_STATE: _NETNS,
    HOST_STATE: _HOST,
    WORKLOAD_STATE: "x-meshd-copy-workload",
}
"""Filter state that goes along, and the header that has it meanwhile."""
_HEADERS: Final = (_DESTINATION, _LOOKED_UP, *_STATES.values())
_MOST: Final = 1024
"""Copies under way at once: nobody waits for them, so nothing else holds them back."""
_IDLE: Final = 60.0
"""Seconds for which a copy may stand still."""

_Mutation = mutation_rules_pb2.HeaderMutation
_Route = route_components_pb2.Route
_Header = route_components_pb2.HeaderMatcher


def mirror_policy(
    cluster: OutboundCluster, percentage: percent_pb2.FractionalPercent, *, looked_up: bool
) -> route_components_pb2.RouteAction.RequestMirrorPolicy:
    """Return the part of a route that sends copies of requests to a cluster, through the
    listener."""
    values = {name: f"%FILTER_STATE({state}:PLAIN)%" for state, name in _STATES.items()}
    values[_DESTINATION] = str(cluster).replace("%", "%%")
    if looked_up:
        values[_LOOKED_UP] = "true"
    return route_components_pb2.RouteAction.RequestMirrorPolicy(
        cluster=MIRROR,
        runtime_fraction=base_pb2.RuntimeFractionalPercent(default_value=percentage),
        trace_sampled={"value": False},
        # Else "-shadow" is part of the host's name, which would be looked up so.
        disable_shadow_host_suffix_append=looked_up,
        # An empty value sets nothing: what a client wrote there is taken off first.
        request_headers_mutations=[
            *(_Mutation(remove=name) for name in _HEADERS),
            *(_Mutation(append=_header(name, value)) for name, value in values.items()),
        ],
    )


def copied_to(action: route_components_pb2.RouteAction) -> Iterator[tuple[str, float]]:
    """Yield the clusters of a route's copies, with the share of the requests in percent."""
    for policy in action.request_mirror_policies:
        for mutation in policy.request_headers_mutations:
            header = mutation.append.header
            if header.key == _DESTINATION:
                millionths = policy.runtime_fraction.default_value.numerator
                yield header.value.replace("%%", "%"), millionths / 10_000


def mirror_cluster() -> cluster_pb2.Cluster:
    """Return a cluster in which each copy has its own connection, so that none waits for
    another."""
    cluster = internal_cluster(MIRROR, MIRROR)
    cluster.circuit_breakers.thresholds[0].max_requests.value = _MOST
    explicit = http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
        http2_protocol_options=limits.http2(1)
    )
    options = http_protocol_options_pb2.HttpProtocolOptions(explicit_http_config=explicit)
    name = f"envoy.extensions.upstreams.http.v3.{options.DESCRIPTOR.name}"
    cluster.typed_extension_protocol_options[name].CopyFrom(packed(options))
    return cluster


def mirror_listener(options: MeshOptions) -> listener_pb2.Listener:
    routes = route_pb2.RouteConfiguration(
        name=MIRROR,
        virtual_hosts=[
            route_components_pb2.VirtualHost(name=MIRROR, domains=["*"], routes=[*_routes()])
        ],
        validate_clusters={"value": False},
    )
    filters = [_state_filter(), dynamic_dns.http_filter()]
    manager = copies_manager(MIRROR, routes, filters, options)
    return listener_pb2.Listener(
        name=MIRROR,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        filter_chains=[chain(MIRROR, None, [manager])],
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
    )


def _state_filter() -> http_connection_manager_pb2.HttpFilter:
    values = [
        state_value(
            state,
            f"%REQ({name})%",
            ONCE,
            factory=UNHASHED if state in {WORKLOAD_STATE, HOST_STATE} else HASHED,
        )
        for state, name in _STATES.items()
    ]
    return http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.set_filter_state",
        typed_config=packed(set_filter_state_pb2.Config(on_request_headers=values)),
    )


def _routes() -> Iterable[_Route]:
    """Yield routes from the client's namespace or, for a service of the host, the host's own."""
    for place in (_NETNS, _HOST):
        whose = [_is_there(_IDENTITY), _is_there(place)]
        yield _onward([*whose, _is_there(_LOOKED_UP)], dynamic_dns.looked_up())
        yield _onward(whose, {})
    yield _Route(
        name="nobody",
        match=route_components_pb2.RouteMatch(prefix="/"),
        direct_response=route_components_pb2.DirectResponseAction(status=503),
    )


def _onward(headers: list[_Header], settings: Mapping[str, any_pb2.Any]) -> _Route:
    action = route_components_pb2.RouteAction(
        cluster_header=_DESTINATION,
        cluster_not_found_response_code=route_components_pb2.RouteAction.SERVICE_UNAVAILABLE,
        timeout=seconds(0),
        idle_timeout=seconds(_IDLE),
    )
    return _Route(
        name=MIRROR,
        match=route_components_pb2.RouteMatch(prefix="/", headers=headers),
        route=action,
        request_headers_to_remove=_HEADERS,
        typed_per_filter_config=settings,
    )


def _is_there(name: str) -> _Header:
    return _Header(name=name, present_match=True)


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
