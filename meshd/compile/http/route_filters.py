"""Settings of HTTP filters for one route: injected faults, and cross-origin requests."""

from __future__ import annotations

from typing import Final

from meshd.api.networking import CorsPolicy, HTTPFaultInjection, Percent
from meshd.compile.plan.routes import Abort, Cors, Delay, Fault
from meshd.matching.conditions import TextMatch
from meshd.matching.reading import text_match

_LEAST_SHARE: Final = 0.0001
"""Per cent."""
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


def asked_percentage(percentage: Percent | None, deprecated: int | None, default: float) -> float:
    if percentage is not None:
        return percentage.value
    return default if deprecated is None else float(deprecated)


def is_some(percent: float) -> bool:
    """Return whether a share is one for proxies, which count in millionths."""
    return percent >= _LEAST_SHARE


def fault(asked: HTTPFaultInjection | None) -> Fault | None:
    """Return a fault; without a percentage no request is affected, as the API says."""
    if asked is None:
        return None
    delay, abort = None, None
    if asked.delay and asked.delay.fixed_delay:
        share = asked_percentage(asked.delay.percentage, asked.delay.percent, 0.0)
        delay = Delay(asked.delay.fixed_delay, share)
    if asked.abort and (asked.abort.http_status or asked.abort.grpc_status):
        share = asked_percentage(asked.abort.percentage, asked.abort.percent, 0.0)
        http, grpc = asked.abort.http_status or 0, asked.abort.grpc_status
        code = _grpc_code(grpc) if grpc and not http else 0
        abort = Abort(http_status=http, grpc_status=code, percent=share)
    return Fault(delay, abort) if delay or abort else None


def _grpc_code(status: str) -> int:
    """Return a code by name or by number; UNKNOWN for anything else."""
    if status.isdecimal():
        return int(status)
    name = status.upper()
    return _GRPC_STATUS.index(name) if name in _GRPC_STATUS else _GRPC_STATUS.index("UNKNOWN")


def cors(policy: CorsPolicy | None) -> Cors | None:
    if policy is None:
        return None
    unmatched = policy.unmatched_preflights
    return Cors(
        origins=(
            *(text_match(origin) for origin in policy.allow_origins),
            *(TextMatch("exact", origin) for origin in policy.allow_origin),
        ),
        methods=",".join(policy.allow_methods),
        headers=",".join(policy.allow_headers),
        exposed=",".join(policy.expose_headers),
        max_age="" if policy.max_age is None else str(int(policy.max_age)),
        credentials=policy.allow_credentials,
        forward_unmatched=None if unmatched in {None, "UNSPECIFIED"} else unmatched == "FORWARD",
    )
