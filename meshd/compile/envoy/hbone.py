"""Prints tunnels between nodes, both their ends.

What a request asks for is its client's word: it is compared with the address of the very workload
whose listener took the tunnel, as text and as a whole, and leads nowhere else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.matcher.v3 import filter_state_pb2, regex_pb2, string_pb2
from envoy.type.v3 import percent_pb2, token_bucket_pb2

from meshd.compile.envoy import filter_state, limits
from meshd.compile.envoy.access_log import access_logs
from meshd.compile.envoy.assignments import TUNNEL
from meshd.compile.envoy.http_connections import base_manager, filters
from meshd.compile.envoy.wellknown import (
    BAGGAGE_STATE,
    WORKLOAD_STATE,
    filter_,
    over_ads,
    packed,
    seconds,
)
from meshd.compile.plan.chains import Tunneled
from meshd.compile.plan.hbone_routes import End, Ends, HboneRoutes
from meshd.model.connection_rate import BURST

_Manager = http_connection_manager_pb2.HttpConnectionManager
_Route = route_components_pb2.Route
_STREAMS: Final = 1024
"""Connections at once in one tunnel; for further ones a client opens another."""
_PORT: Final = (
    "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
"""A number from 1 to 65535, as it is written without zeros before it."""
_FORBIDDEN: Final = 403
_RATE: Final = "envoy.filters.http.local_ratelimit"


def put_tunnel(made: tcp_proxy_pb2.TcpProxy.TunnelingConfig) -> None:
    """Write that connections travel inside requests, to where their metadata says."""
    made.hostname = f"%DYNAMIC_METADATA({TUNNEL}:destination)%"
    said = base_pb2.HeaderValue(key="baggage", value=f"%FILTER_STATE({BAGGAGE_STATE}:PLAIN)%")
    made.headers_to_add.add(header=said)


def tunnel_manager(target: Tunneled) -> listener_components_pb2.Filter:
    """Return the manager of the tunnels that arrive."""
    manager = _Manager()
    manager.CopyFrom(_alike(target))
    manager.rds.CopyFrom(
        http_connection_manager_pb2.Rds(config_source=over_ads(), route_config_name=target.routes)
    )
    return filter_("envoy.filters.network.http_connection_manager", manager)


@functools.lru_cache(maxsize=64)
def _alike(target: Tunneled) -> http_connection_manager_pb2.HttpConnectionManager:
    """Return what all have in common. It is shared: copy, never change."""
    made = _Manager()
    made.CopyFrom(base_manager(target.access_log))
    made.stat_prefix = target.statistics
    del made.access_log[:]
    made.access_log.extend(access_logs(target.access_log, of_tunnels=True))
    # The name that TLS has agreed on is not asked: whoever offered none is read as HTTP/2, too.
    made.codec_type = _Manager.HTTP2
    made.normalize_path.value = False
    made.strip_trailing_host_dot = False
    made.proxy_100_continue = False
    made.generate_request_id.value = False
    made.forward_client_cert_details = _Manager.SANITIZE
    del made.upgrade_configs[:]
    made.upgrade_configs.add(upgrade_type="CONNECT")
    made.http2_protocol_options.CopyFrom(limits.http2(_STREAMS, allow_connect=True, tunnels=True))
    if target.rate:
        made.http_filters.add(name=_RATE, typed_config=packed(_rate(target.rate)))
    noted = set_filter_state_pb2.Config(on_request_headers=filter_state.of_request())
    made.http_filters.add(name="envoy.filters.http.set_filter_state", typed_config=packed(noted))
    made.http_filters.extend(filters())
    return made


def _rate(limit: int) -> local_rate_limit_pb2.LocalRateLimit:
    """Return the filter that refuses requests above a rate, of all the workload's tunnels."""
    always = base_pb2.RuntimeFractionalPercent(
        default_value=percent_pb2.FractionalPercent(numerator=100)
    )
    return local_rate_limit_pb2.LocalRateLimit(
        stat_prefix="hbone",
        token_bucket=token_bucket_pb2.TokenBucket(
            max_tokens=BURST * limit,
            tokens_per_fill={"value": limit},
            fill_interval=seconds(1),
        ),
        filter_enabled=always,
        filter_enforced=always,
    )


def hbone_routes(planned: HboneRoutes) -> route_pb2.RouteConfiguration:
    """Return the route table. What fits no route is refused."""
    return route_pb2.RouteConfiguration(
        name=planned.name,
        virtual_hosts=[_host(ends, planned.refused) for ends in planned.ends],
        validate_clusters={"value": False},
    )


def _host(ends: Ends, refused: tuple[int, ...]) -> route_components_pb2.VirtualHost:
    address = f"[{ends.address}]" if ":" in ends.address else ends.address
    routes = [route for end in ends.ends for route in _routes(end, address)]
    return route_components_pb2.VirtualHost(
        name=address, domains=[f"{address}:*"], routes=[_refusal(address, refused), *routes]
    )


def _refusal(address: str, ports: tuple[int, ...]) -> _Route:
    return _Route(
        name="refused",
        match=_match(address, _any_of(ports)),
        direct_response=route_components_pb2.DirectResponseAction(status=_FORBIDDEN),
    )


def _routes(end: End, address: str) -> Iterator[_Route]:
    ways = [(_any_of(end.inspected), end.inspecting_upstream)] if end.inspected else []
    for ports, upstream in (*ways, (_PORT, end.upstream)):
        match = _match(address, ports)
        match.filter_state.append(
            filter_state_pb2.FilterStateMatcher(
                key=WORKLOAD_STATE, string_match=string_pb2.StringMatcher(exact=end.uid)
            )
        )
        action = route_components_pb2.RouteAction(cluster=upstream, timeout=seconds(0))
        action.upgrade_configs.add(upgrade_type="CONNECT").connect_config.SetInParent()
        yield _Route(name=end.uid, match=match, route=action)


def _any_of(ports: tuple[int, ...]) -> str:
    return f"(?:{'|'.join(map(str, ports))})"


def _match(address: str, ports: str) -> route_components_pb2.RouteMatch:
    regex = regex_pb2.RegexMatcher(regex=f"{re.escape(address)}:{ports}")
    made = route_components_pb2.RouteMatch()
    made.connect_matcher.SetInParent()
    made.headers.add(name=":authority").string_match.safe_regex.CopyFrom(regex)
    return made
