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

from meshd.compile.envoy import tokens
from meshd.compile.envoy.authorization import (
    AUDITED_BY,
    METADATA,
    TRIED_ALLOW,
    TRIED_DENY,
    TRIED_RESULTS,
)
from meshd.compile.envoy.wellknown import PEER_STATE, WORKLOAD_STATE, packed
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
_POLICIES: Final = (
    f"meshd-access %FILTER_STATE({WORKLOAD_STATE}:PLAIN)% "
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% policies "
    + " ".join(
        f"{name}=%DYNAMIC_METADATA({METADATA}:{key})%"
        for name, key in (
            ("audited", AUDITED_BY),
            ("would_deny", TRIED_DENY),
            ("would_allow", TRIED_ALLOW),
        )
    )
    + f' "%FILTER_STATE({PEER_STATE}:PLAIN)%" %DOWNSTREAM_REMOTE_ADDRESS%'
)
"""What policies say that decide nothing."""
_OF_TUNNELS: Final = f'{_FORMAT} "%REQ(BAGGAGE):512%"'
"""Comes last, since nobody vouches for what it says."""


@functools.cache
def access_logs(
    which: AccessLog, *, of_tunnels: bool = False, denied: bool = False
) -> tuple[accesslog_pb2.AccessLog, ...]:
    """Return the logs: none, failures only, or everything; ``of_tunnels``: with what requests for
    connections say of their clients; ``denied``: see ``Tcp``. They are shared: copy, never
    change."""
    if which == "off":
        return ()
    line = _OF_TUNNELS if of_tunnels else _FORMAT
    if denied:
        why = "rbac_access_denied_matched_policy[none]"
        line = line.replace("%CONNECTION_TERMINATION_DETAILS%", why)
    return (_log(line, None if which == "all" else _failures()),)


@functools.cache
def policy_logs() -> tuple[accesslog_pb2.AccessLog, ...]:
    """Return the log of requests that are audited, or that rules on trial would deny. It is shared:
    copy, never change."""
    noted = (_metadata(METADATA, key, "denied") for key in TRIED_RESULTS)
    audited = accesslog_pb2.AccessLogFilter(
        metadata_filter=accesslog_pb2.MetadataFilter(
            matcher=metadata_pb2.MetadataMatcher(
                filter="envoy.common", path=[{"key": "access_log_hint"}], value={"bool_match": True}
            ),
            match_if_key_not_found={"value": False},
        )
    )
    either = accesslog_pb2.OrFilter(filters=[audited, *noted])
    return (_log(_POLICIES, accesslog_pb2.AccessLogFilter(or_filter=either)),)


def _log(line: str, filter_: accesslog_pb2.AccessLogFilter | None) -> accesslog_pb2.AccessLog:
    text = base_pb2.DataSource(inline_string=f"{line}\n")
    written = substitution_format_string_pb2.SubstitutionFormatString(text_format_source=text)
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stdout",
        filter=filter_,
        typed_config=packed(stream_pb2.StdoutAccessLog(log_format=written)),
    )


def _metadata(name: str, key: str, text: str) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(
        metadata_filter=accesslog_pb2.MetadataFilter(
            matcher=metadata_pb2.MetadataMatcher(
                filter=name, path=[{"key": key}], value={"string_match": {"exact": text}}
            ),
            match_if_key_not_found={"value": False},
        )
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
                accesslog_pb2.AccessLogFilter(and_filter=_refused_tokens()),
                accesslog_pb2.AccessLogFilter(
                    response_flag_filter=accesslog_pb2.ResponseFlagFilter()
                ),
            ]
        )
    )


def _refused_tokens() -> accesslog_pb2.AndFilter:
    """Return a filter for requests whose token is not believed."""
    unauthorized = accesslog_pb2.StatusCodeFilter(
        comparison=accesslog_pb2.ComparisonFilter(
            op=accesslog_pb2.ComparisonFilter.EQ,
            value={"default_value": 401, "runtime_key": "meshd.access_log.refused_status"},
        )
    )
    refused = accesslog_pb2.AccessLogFilter(
        metadata_filter=accesslog_pb2.MetadataFilter(
            matcher=metadata_pb2.MetadataMatcher(
                filter=tokens.METADATA,
                path=[{"key": key} for key in tokens.REFUSED],
                value={"present_match": True},
            ),
            match_if_key_not_found={"value": False},
        )
    )
    return accesslog_pb2.AndFilter(
        filters=[accesslog_pb2.AccessLogFilter(status_code_filter=unauthorized), refused]
    )


def _denials() -> accesslog_pb2.AndFilter:
    """Return a filter for what a policy denies, of which few requests need a second look."""
    forbidden = accesslog_pb2.StatusCodeFilter(
        comparison=accesslog_pb2.ComparisonFilter(
            op=accesslog_pb2.ComparisonFilter.EQ,
            value={"default_value": 403, "runtime_key": "meshd.access_log.denied_status"},
        )
    )
    return accesslog_pb2.AndFilter(
        filters=[
            accesslog_pb2.AccessLogFilter(status_code_filter=forbidden),
            _metadata(METADATA, "enforced_engine_result", "denied"),
        ]
    )
