"""Print settings of HTTP filters for one route: injected faults, and cross-origin requests."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.type.v3 import percent_pb2

from meshd.compile.envoy.route_matches import string_matcher
from meshd.compile.envoy.wellknown import seconds
from meshd.compile.plan.routes import Cors, Fault


def fraction(percent: float) -> percent_pb2.FractionalPercent:
    """Return a percentage down to a ten-thousandth of one."""
    return percent_pb2.FractionalPercent(
        numerator=round(min(max(percent, 0.0), 100.0) * 10_000),
        denominator=percent_pb2.FractionalPercent.MILLION,
    )


def fault(planned: Fault) -> fault_pb2.HTTPFault:
    made = fault_pb2.HTTPFault()
    if delay := planned.delay:
        made.delay.fixed_delay.CopyFrom(seconds(delay.seconds))
        made.delay.percentage.CopyFrom(fraction(delay.percent))
    if abort := planned.abort:
        made.abort.percentage.CopyFrom(fraction(abort.percent))
        if abort.http_status:
            made.abort.http_status = abort.http_status
        else:
            made.abort.grpc_status = abort.grpc_status
    return made


def cors(planned: Cors) -> cors_pb2.CorsPolicy:
    made = cors_pb2.CorsPolicy(
        allow_origin_string_match=map(string_matcher, planned.origins),
        allow_methods=planned.methods,
        allow_headers=planned.headers,
        expose_headers=planned.exposed,
        max_age=planned.max_age,
        filter_enabled=base_pb2.RuntimeFractionalPercent(default_value=fraction(100)),
    )
    if planned.credentials is not None:
        made.allow_credentials.value = planned.credentials
    if planned.forward_unmatched is not None:
        made.forward_not_matching_preflights.value = planned.forward_unmatched
    return made
