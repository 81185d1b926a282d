"""Settings of HTTP filters for one route: injected faults, and cross-origin requests."""

from __future__ import annotations

from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2

from meshd.api.traffic import CorsPolicy, HTTPFaultInjection, HTTPRoute, Percent
from meshd.compile.envoy.wellknown import packed, seconds
from meshd.compile.http.idempotence import idempotence_settings
from meshd.compile.http.route_match import string_matcher

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


def filter_settings(route: HTTPRoute) -> dict[str, any_pb2.Any]:
    """Return a route's ``typed_per_filter_config``."""
    settings = idempotence_settings(route.retries)
    if route.fault and (fault := _fault(route.fault)) is not None:
        settings[FAULT_FILTER] = packed(fault)
    if route.cors_policy:
        settings[CORS_FILTER] = packed(_cors(route.cors_policy))
    return settings


def fraction(percent: float) -> percent_pb2.FractionalPercent:
    """Return a percentage down to a ten-thousandth of one."""
    return percent_pb2.FractionalPercent(
        numerator=round(min(max(percent, 0.0), 100.0) * 10_000),
        denominator=percent_pb2.FractionalPercent.MILLION,
    )


def asked_percentage(percentage: Percent | None, deprecated: int | None, default: float) -> float:
    if percentage is not None:
        return percentage.value
    return default if deprecated is None else float(deprecated)


def _fault(fault: HTTPFaultInjection) -> fault_pb2.HTTPFault | None:
    """Return a fault; without a percentage no request is affected, as the API says."""
    made = fault_pb2.HTTPFault()
    delay, abort = fault.delay, fault.abort
    if delay and delay.fixed_delay:
        share = asked_percentage(delay.percentage, delay.percent, 0.0)
        made.delay.fixed_delay.CopyFrom(seconds(delay.fixed_delay))
        made.delay.percentage.CopyFrom(fraction(share))
    if abort:
        share = fraction(asked_percentage(abort.percentage, abort.percent, 0.0))
        if abort.http_status:
            made.abort.http_status = abort.http_status
            made.abort.percentage.CopyFrom(share)
        elif abort.grpc_status:
            made.abort.grpc_status = _grpc_code(abort.grpc_status)
            made.abort.percentage.CopyFrom(share)
    return made if made.ListFields() else None


def _grpc_code(status: str) -> int:
    """Return a code by name or by number; UNKNOWN for anything else."""
    if status.isdecimal():
        return int(status)
    name = status.upper()
    return _GRPC_STATUS.index(name) if name in _GRPC_STATUS else _GRPC_STATUS.index("UNKNOWN")


def _cors(policy: CorsPolicy) -> cors_pb2.CorsPolicy:
    origins = [
        *(string_matcher(origin) for origin in policy.allow_origins),
        *(string_pb2.StringMatcher(exact=origin) for origin in policy.allow_origin),
    ]
    made = cors_pb2.CorsPolicy(
        allow_origin_string_match=origins,
        allow_methods=",".join(policy.allow_methods),
        allow_headers=",".join(policy.allow_headers),
        expose_headers=",".join(policy.expose_headers),
        filter_enabled=base_pb2.RuntimeFractionalPercent(default_value=fraction(100)),
    )
    if policy.max_age is not None:
        made.max_age = str(int(policy.max_age))
    if policy.allow_credentials is not None:
        made.allow_credentials.value = policy.allow_credentials
    if policy.unmatched_preflights not in {None, "UNSPECIFIED"}:
        made.forward_not_matching_preflights.value = policy.unmatched_preflights == "FORWARD"
    return made
