"""Retries idempotent requests whose connection ends before the answer.

A connection to a workload ends in some member of the pool, and when that one is killed its workload
lives on: what failed there is worth another attempt. But the router's conditions for retries hold
for a route's requests of any method, and one that has been sent may be repeated by a proxy only if
that makes no difference (RFC 9110, section 9.2.2). So a filter adds the condition to those, by a
header that the router keeps to itself.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/router_filter
"""

from __future__ import annotations

from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from google.protobuf import any_pb2

from meshd.api.traffic import HTTPRetry
from meshd.compile.envoy.wellknown import packed

FILTER: Final = "meshd.retry_idempotent"
METHODS: Final = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
_CONDITION: Final = f"%CEL(request.method in {list(METHODS)} ? 'reset' : '')%"

NOT_SENT: Final = "x-meshd-not-sent"
"""Response header by which a server's proxy says to its client's that it could not connect to the
application, so that the request may be made again, whatever its method. Workloads do not see it."""


def idempotence_filter() -> header_mutation_pb2.HeaderMutation:
    """Return the filter's configuration, for HTTP connection managers."""
    condition = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key="x-envoy-retry-on", value=_CONDITION),
        append_action=base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD,
    )
    return header_mutation_pb2.HeaderMutation(
        mutations=header_mutation_pb2.Mutations(
            request_mutations=[mutation_rules_pb2.HeaderMutation(append=condition)]
        )
    )


def idempotence_settings(asked: HTTPRetry | None) -> dict[str, any_pb2.Any]:
    """Return a route's part of ``typed_per_filter_config``: a route that says what to retry
    wins."""
    if asked is None or (asked.attempts > 0 and not asked.retry_on):
        return {}
    return never()


def never() -> dict[str, any_pb2.Any]:
    return {FILTER: packed(route_components_pb2.FilterConfig(disabled=True))}
