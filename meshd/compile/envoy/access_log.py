"""Access logs: one line for each request or connection on the proxy's standard output.

The text is Istio's default format, which other tools read:
https://istio.io/latest/docs/tasks/observability/logs/access-log/.
"""

from __future__ import annotations

import functools
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.type.matcher.v3 import metadata_pb2

from meshd.compile.envoy.wellknown import WORKLOAD_STATE, packed
from meshd.compile.plan.chains import AccessLog

_FORMAT: Final = (
    # By this the supervisor, who takes it off again, knows whose line it is.
    f"meshd-access %FILTER_STATE({WORKLOAD_STATE}:PLAIN)% "
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
    "%CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% '
    '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% "
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"
)
_RBAC: Final = "envoy.filters.http.rbac"
"""Under this name the RBAC filters note what they have decided, whatever they are called."""
_OF_TUNNELS: Final = f'{_FORMAT} "%REQ(BAGGAGE):512%"'
"""Comes last, since nobody vouches for what it says."""


@functools.cache
def access_logs(
    which: AccessLog, *, of_tunnels: bool = False
) -> tuple[accesslog_pb2.AccessLog, ...]:
    """Return the logs: none, failures only, or everything; ``of_tunnels``: with what requests for
    connections say of their clients. They are shared: copy, never change."""
    if which == "off":
        return ()
    line = _OF_TUNNELS if of_tunnels else _FORMAT
    return (
        accesslog_pb2.AccessLog(
            name="envoy.access_loggers.stdout",
            filter=None if which == "all" else _failures(),
            typed_config=packed(
                stream_pb2.StdoutAccessLog(
                    log_format=substitution_format_string_pb2.SubstitutionFormatString(
                        text_format_source=base_pb2.DataSource(inline_string=f"{line}\n")
                    )
                )
            ),
        ),
    )


def _failures() -> accesslog_pb2.AccessLogFilter:
    server_error = accesslog_pb2.StatusCodeFilter(
        comparison=accesslog_pb2.ComparisonFilter(
            op=accesslog_pb2.ComparisonFilter.GE,
            value={"default_value": 500, "runtime_key": "meshd.access_log.minimum_status"},
        )
    )
    return accesslog_pb2.AccessLogFilter(
        or_filter=accesslog_pb2.OrFilter(
            filters=[
                accesslog_pb2.AccessLogFilter(status_code_filter=server_error),
                accesslog_pb2.AccessLogFilter(and_filter=_denials()),
                accesslog_pb2.AccessLogFilter(
                    response_flag_filter=accesslog_pb2.ResponseFlagFilter()
                ),
            ]
        )
    )


def _denials() -> accesslog_pb2.AndFilter:
    """Return a filter for what a policy denies, of which few requests need a second look."""
    forbidden = accesslog_pb2.StatusCodeFilter(
        comparison=accesslog_pb2.ComparisonFilter(
            op=accesslog_pb2.ComparisonFilter.EQ,
            value={"default_value": 403, "runtime_key": "meshd.access_log.denied_status"},
        )
    )
    denied = accesslog_pb2.MetadataFilter(
        matcher=metadata_pb2.MetadataMatcher(
            filter=_RBAC,
            path=[{"key": "enforced_engine_result"}],
            value={"string_match": {"exact": "denied"}},
        ),
        match_if_key_not_found={"value": False},
    )
    return accesslog_pb2.AndFilter(
        filters=[
            accesslog_pb2.AccessLogFilter(status_code_filter=forbidden),
            accesslog_pb2.AccessLogFilter(metadata_filter=denied),
        ]
    )
