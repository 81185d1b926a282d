"""Prints the settings of upstreams: what clusters have in common, whatever their names."""

from __future__ import annotations

import functools
from typing import Final

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, wrappers_pb2

from meshd.api.destination_rule.types import LARGEST_RING
from meshd.compile.envoy import limits
from meshd.compile.envoy.callers import caller_filters
from meshd.compile.envoy.wellknown import from_namespace, packed, seconds
from meshd.compile.plan.upstreams import (
    Balancing,
    Ejection,
    Http,
    HttpVersion,
    Keepalive,
    LeastRequest,
    Limits,
    Maglev,
    Ping,
    Random,
    RetryBudget,
    RingHash,
    RoundRobin,
    Settings,
    SlowStart,
)

_CLUSTER: Final = cluster_pb2.Cluster
_Thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds
_HTTP_OPTIONS: Final = http_protocol_options_pb2.HttpProtocolOptions
_HTTP_OPTIONS_KEY: Final = _HTTP_OPTIONS.DESCRIPTOR.full_name


@functools.lru_cache(maxsize=256)
def common_part(settings: Settings) -> cluster_pb2.Cluster:
    """Return a cluster without a name, to be copied and never changed."""
    timeout = settings.connect_timeout
    made = _CLUSTER(
        connect_timeout=None if timeout is None else seconds(timeout),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        circuit_breakers=_circuit_breakers(settings.limits),
        upstream_connection_options=_keepalive(settings.keepalive),
        outlier_detection=_outlier_detection(settings.ejection),
        common_lb_config=_common_balancing(settings),
        upstream_bind_config=from_namespace(settings.mark) if settings.mark else None,
        typed_extension_protocol_options=_http(settings.http),
    )
    if settings.balancing:
        made.MergeFrom(_balancing(settings.balancing))
    return made


def _balancing(asked: Balancing) -> cluster_pb2.Cluster:
    made = _CLUSTER()
    match asked:
        case LeastRequest(slow_start):
            made.lb_policy = _CLUSTER.LEAST_REQUEST
            if slow_start:
                made.least_request_lb_config.slow_start_config.CopyFrom(_slow_start(slow_start))
        case RoundRobin(slow_start):
            made.lb_policy = _CLUSTER.ROUND_ROBIN
            if slow_start:
                made.round_robin_lb_config.slow_start_config.CopyFrom(_slow_start(slow_start))
        case Random():
            made.lb_policy = _CLUSTER.RANDOM
        case RingHash(size):
            made.lb_policy = _CLUSTER.RING_HASH
            made.ring_hash_lb_config.minimum_ring_size.value = size
            # Weights of endpoints that differ much would make any ring as large as is allowed.
            made.ring_hash_lb_config.maximum_ring_size.value = LARGEST_RING
        case Maglev(size):
            made.lb_policy = _CLUSTER.MAGLEV
            made.maglev_lb_config.SetInParent()
            if size:
                made.maglev_lb_config.table_size.value = size
    return made


def _slow_start(asked: SlowStart) -> cluster_pb2.Cluster.SlowStartConfig:
    return _CLUSTER.SlowStartConfig(
        slow_start_window=seconds(asked.window),
        aggression={"default_value": asked.aggression, "runtime_key": "meshd.warmup.aggression"},
        min_weight_percent=percent_pb2.Percent(value=asked.minimum_percent),
    )


def _circuit_breakers(asked: Limits | None) -> circuit_breaker_pb2.CircuitBreakers | None:
    """Return circuit breakers whose statistics show what is left of a limit."""
    if asked is None:
        return None
    thresholds = _Thresholds(
        track_remaining=True,
        retry_budget=_retry_budget(asked.retry_budget),
        max_connections={"value": asked.connections},
        max_pending_requests={"value": asked.pending_requests},
        max_requests={"value": asked.requests},
        max_retries={"value": asked.retries},
    )
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])


def _retry_budget(asked: RetryBudget | None) -> _Thresholds.RetryBudget | None:
    if asked is None:
        return None
    return _Thresholds.RetryBudget(
        budget_percent=percent_pb2.Percent(value=asked.percent),
        min_retry_concurrency={"value": asked.minimum},
    )


def _keepalive(asked: Keepalive | None) -> cluster_pb2.UpstreamConnectionOptions | None:
    if asked is None:
        return None
    return cluster_pb2.UpstreamConnectionOptions(
        tcp_keepalive=address_pb2.TcpKeepalive(
            keepalive_probes=_number(asked.probes),
            keepalive_time=_number(asked.time),
            keepalive_interval=_number(asked.interval),
        )
    )


def _number(value: int | None) -> wrappers_pb2.UInt32Value | None:
    return None if value is None else wrappers_pb2.UInt32Value(value=value)


def _outlier_detection(asked: Ejection | None) -> outlier_detection_pb2.OutlierDetection | None:
    if asked is None:
        return None
    made = outlier_detection_pb2.OutlierDetection(
        enforcing_success_rate={"value": 0},
        interval=seconds(asked.interval) if asked.interval else None,
        base_ejection_time=seconds(asked.duration) if asked.duration else None,
        max_ejection_percent=_number(asked.most_percent),
        split_external_local_origin_errors=asked.separates_local,
    )
    _put_limit(made.enforcing_consecutive_5xx, made.consecutive_5xx, asked.errors)
    _put_limit(
        made.enforcing_consecutive_gateway_failure,
        made.consecutive_gateway_failure,
        asked.gateway_errors,
    )
    _put_limit(
        made.enforcing_consecutive_local_origin_failure,
        made.consecutive_local_origin_failure,
        asked.local_failures,
    )
    return made


def _put_limit(
    enforcing: wrappers_pb2.UInt32Value, number: wrappers_pb2.UInt32Value, limit: int | None
) -> None:
    """Write how many failures in a row eject an endpoint; 0: that kind never does."""
    if limit is not None:
        enforcing.value = 100 if limit else 0
    if limit:
        number.value = limit


def _common_balancing(settings: Settings) -> cluster_pb2.Cluster.CommonLbConfig | None:
    """Return when failing endpoints are used all the same, and whether localities have weights."""
    if settings.ejection is None and not settings.by_locality:
        return None
    config = _CLUSTER.CommonLbConfig()
    if settings.ejection is not None:
        panic = percent_pb2.Percent(value=settings.ejection.minimum_healthy_percent)
        config.healthy_panic_threshold.CopyFrom(panic)
    if settings.by_locality:
        config.locality_weighted_lb_config.SetInParent()
    return config


def _http(asked: Http | None) -> dict[str, any_pb2.Any]:
    if asked is None:
        return {}
    options = _HTTP_OPTIONS(
        common_http_protocol_options=_common_http_options(asked),
        upstream_http_protocol_options=_names_from_requests(asked),
        http_filters=caller_filters() if asked.names_caller else (),
    )
    http2 = limits.http2(asked.max_streams, keep_alive=_ping(asked.ping), tunnels=asked.tunnels)
    match asked.version:
        case HttpVersion.HTTP1:
            options.explicit_http_config.http_protocol_options.SetInParent()
        case HttpVersion.HTTP2:
            options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
        case HttpVersion.CLIENTS:
            options.use_downstream_protocol_config.http_protocol_options.SetInParent()
            options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)
        case HttpVersion.APPLICATIONS:
            options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)
    return {_HTTP_OPTIONS_KEY: packed(options)}


def _ping(asked: Ping | None) -> protocol_pb2.KeepaliveSettings | None:
    if asked is None:
        return None
    return protocol_pb2.KeepaliveSettings(
        interval=seconds(asked.interval), timeout=seconds(asked.timeout)
    )


def _common_http_options(asked: Http) -> protocol_pb2.HttpProtocolOptions | None:
    options = protocol_pb2.HttpProtocolOptions()
    if asked.idle_timeout is not None:
        options.idle_timeout.CopyFrom(seconds(asked.idle_timeout))
    if asked.max_requests_per_connection is not None:
        options.max_requests_per_connection.value = asked.max_requests_per_connection
    if asked.max_connection_duration is not None:
        options.max_connection_duration.CopyFrom(seconds(asked.max_connection_duration))
    return options if options.ListFields() else None


def _names_from_requests(asked: Http) -> protocol_pb2.UpstreamHttpProtocolOptions | None:
    if not asked.names_from_requests:
        return None
    return protocol_pb2.UpstreamHttpProtocolOptions(
        auto_sni=True, auto_san_validation=asked.names_from_requests == "verified"
    )
