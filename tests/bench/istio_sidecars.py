"""What Istio's sidecars have beyond a bare pair: listeners, filters and telemetry, after Istio's
public documentation and what ``istioctl proxy-config`` prints of a sidecar.

- One port each way takes all that is redirected and hands it on by its original destination; first
  bytes are looked at where connections come in.
- Filters of HTTP: gRPC's statistics, faults, CORS, and Istio's standard metrics with their labels,
  https://istio.io/latest/docs/reference/config/metrics/, on both sides.
- Retries, request identifiers, path normalisation, WebSockets, forwarded client certificates,
  circuit breakers, least request, ALPN and SNI of the mesh.

Not in this Envoy, and so left out: Istio's own filters, which exchange metadata between the two
sides and choose ALPN by protocol. Metrics are made by Envoy's own logger of statistics instead.
Tracing and access logs are off, as they are in Istio until a provider is configured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.bench.figures import Json

_TYPE: Final = "type.googleapis.com/envoy"
_LABELS: Final = {
    "reporter": "source",
    "source_workload": "client",
    "source_workload_namespace": "bench",
    "source_principal": "%DOWNSTREAM_PEER_URI_SAN%",
    "source_app": "client",
    "source_version": "unknown",
    "source_cluster": "Kubernetes",
    "source_canonical_service": "client",
    "source_canonical_revision": "latest",
    "destination_workload": "server",
    "destination_workload_namespace": "bench",
    "destination_principal": "%UPSTREAM_PEER_URI_SAN%",
    "destination_app": "server",
    "destination_version": "unknown",
    "destination_service": "%UPSTREAM_CLUSTER%",
    "destination_service_name": "server",
    "destination_service_namespace": "bench",
    "destination_cluster": "Kubernetes",
    "destination_canonical_service": "server",
    "destination_canonical_revision": "latest",
    "connection_security_policy": "mutual_tls",
    "response_flags": "%RESPONSE_FLAGS%",
}
_MILLISECONDS: Final = 3
_BYTES: Final = 1
"""Units of histograms."""


def typed(name: str, package: str, message: str, **fields: Any) -> Json:
    kind = f"{_TYPE}.extensions.{package}.{message}"
    return {"name": name, "typed_config": {"@type": kind, **fields}}


def listener_filters(*, inbound: bool) -> list[Json]:
    """Return the filters of the port to which connections are redirected."""
    names = ("original_dst", *(("tls_inspector", "http_inspector") if inbound else ()))
    return [_listener_filter(name) for name in names]


def _listener_filter(name: str) -> Json:
    message = "".join(part.capitalize() for part in name.split("_"))
    return typed(f"envoy.filters.listener.{name}", f"filters.listener.{name}.v3", message)


def http_filters() -> list[Json]:
    """Return the filters before the router."""
    return [
        typed(
            "envoy.filters.http.grpc_stats",
            "filters.http.grpc_stats.v3",
            "FilterConfig",
            emit_filter_state=True,
            stats_for_all_methods=False,
        ),
        typed("envoy.filters.http.fault", "filters.http.fault.v3", "HTTPFault"),
        typed("envoy.filters.http.cors", "filters.http.cors.v3", "Cors"),
    ]


def manager(*, inbound: bool) -> Json:
    """Return settings of a connection manager."""
    forwarded: Json = (
        {
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        }
        if inbound
        else {}
    )
    return {
        **forwarded,
        "access_log": [http_metrics()],
        "proxy_100_continue": True,
        "server_name": "istio-envoy",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    }


def route() -> Json:
    """Return what an action of a client's side has: Istio's default retries."""
    predicate = typed(
        "envoy.retry_host_predicates.previous_hosts",
        "retry.host.previous_hosts.v3",
        "PreviousHostsPredicate",
    )
    return {
        "max_grpc_timeout": "0s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
            "num_retries": 2,
            "retry_host_predicate": [predicate],
            "host_selection_retry_max_attempts": 5,
        },
    }


def cluster() -> Json:
    """Return settings of a client's cluster."""
    most = 2**32 - 1
    limits = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), most
    )
    return {
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{**limits, "track_remaining": True}]},
    }


def http_metrics() -> Json:
    """Return the logger that keeps Istio's standard metrics of requests."""
    return _metrics(
        [("requests_total", None)],
        [
            ("request_duration_milliseconds", "%DURATION%", _MILLISECONDS),
            ("request_bytes", "%BYTES_RECEIVED%", _BYTES),
            ("response_bytes", "%BYTES_SENT%", _BYTES),
        ],
        {"request_protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%"},
    )


def tcp_metrics() -> Json:
    """Return the logger that keeps Istio's standard metrics of connections."""
    counters: list[tuple[str, str | None]] = [
        ("tcp_connections_closed_total", None),
        ("tcp_sent_bytes_total", "%BYTES_SENT%"),
        ("tcp_received_bytes_total", "%BYTES_RECEIVED%"),
    ]
    return _metrics(counters, [], {"request_protocol": "tcp"})


def _metrics(
    counters: list[tuple[str, str | None]],
    histograms: list[tuple[str, str, int]],
    labels: dict[str, str],
) -> Json:
    tags = list(_tags(labels))
    return typed(
        "envoy.access_loggers.stats",
        "access_loggers.stats.v3",
        "Config",
        stat_prefix="istio",
        counters=[
            {"stat": {"name": name, "tags": tags}}
            | ({"value_fixed": 1} if value is None else {"value_format": value})
            for name, value in counters
        ],
        histograms=[
            {"stat": {"name": name, "tags": tags}, "unit": unit, "value_format": value}
            for name, value, unit in histograms
        ],
    )


def _tags(labels: dict[str, str]) -> Iterator[Json]:
    for name, value in (_LABELS | labels).items():
        yield {"name": name, "value_format": value}
