"""Settings of HTTP filters for one route: faults on purpose, and cross-origin requests."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import percent_pb2

from meshd.compile.idempotence import idempotence_settings
from meshd.compile.route_match import string_matcher
from meshd.compile.wellknown import packed, seconds
from meshd.model.traffic import CorsPolicy, HTTPFaultInjection, HTTPRoute, Percent

FAULT_FILTER: Final = "envoy.filters.http.fault"
CORS_FILTER: Final = "envoy.filters.http.cors"

_GRPC_STATUS: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def filter_settings(route: HTTPRoute) -> dict[str, Any]:
    """``typed_per_filter_config`` of a route."""
    settings = idempotence_settings(route.retries)
    if route.fault and (fault := _fault(route.fault)) is not None:
        settings[FAULT_FILTER] = packed(fault)
    if route.cors_policy:
        settings[CORS_FILTER] = packed(_cors(route.cors_policy))
    return settings


def fraction(percent: float) -> Any:
    """A percentage down to a ten-thousandth of one."""
    return percent_pb2.FractionalPercent(
        numerator=round(min(max(percent, 0.0), 100.0) * 10_000),
        denominator=percent_pb2.FractionalPercent.MILLION,
    )


def asked_percentage(percentage: Percent | None, deprecated: int | None, default: float) -> float:
    if percentage is not None:
        return percentage.value
    return default if deprecated is None else float(deprecated)


def _fault(fault: HTTPFaultInjection) -> Any:
    """Without a percentage no request is affected, as the API says."""
    fields: dict[str, Any] = {}
    delay, abort = fault.delay, fault.abort
    if delay and delay.fixed_delay:
        share = asked_percentage(delay.percentage, delay.percent, 0.0)
        fields["delay"] = common_fault_pb2.FaultDelay(
            fixed_delay=seconds(delay.fixed_delay), percentage=fraction(share)
        )
    if abort:
        share = fraction(asked_percentage(abort.percentage, abort.percent, 0.0))
        if abort.http_status:
            fields["abort"] = fault_pb2.FaultAbort(http_status=abort.http_status, percentage=share)
        elif abort.grpc_status:
            code = _grpc_code(abort.grpc_status)
            fields["abort"] = fault_pb2.FaultAbort(grpc_status=code, percentage=share)
    return fault_pb2.HTTPFault(**fields) if fields else None


def _grpc_code(status: str) -> int:
    """By name or by number; UNKNOWN for what is neither."""
    if status.isdecimal():
        return int(status)
    name = status.upper()
    return _GRPC_STATUS.index(name) if name in _GRPC_STATUS else _GRPC_STATUS.index("UNKNOWN")


def _cors(policy: CorsPolicy) -> Any:
    origins = [
        *(string_matcher(origin) for origin in policy.allow_origins),
        *(string_pb2.StringMatcher(exact=origin) for origin in policy.allow_origin),
    ]
    fields: dict[str, Any] = {
        "allow_origin_string_match": origins,
        "allow_methods": ",".join(policy.allow_methods),
        "allow_headers": ",".join(policy.allow_headers),
        "expose_headers": ",".join(policy.expose_headers),
        "filter_enabled": base_pb2.RuntimeFractionalPercent(default_value=fraction(100)),
    }
    if policy.max_age is not None:
        fields["max_age"] = str(int(policy.max_age))
    if policy.allow_credentials is not None:
        fields["allow_credentials"] = {"value": policy.allow_credentials}
    if policy.unmatched_preflights not in {None, "UNSPECIFIED"}:
        forward = policy.unmatched_preflights == "FORWARD"
        fields["forward_not_matching_preflights"] = {"value": forward}
    return cors_pb2.CorsPolicy(**fields)
