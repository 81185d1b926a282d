"""Retries idempotent requests whose connection ends before the answer.

A connection to a workload ends in some member of the pool, and when that one is killed its workload
lives on: what failed there is worth another attempt. But the router's conditions for retries hold
for a route's requests of any method, and one that has been sent may be repeated by a proxy only if
that makes no difference (RFC 9110, section 9.2.2). So a filter adds the condition to those, by a
header that the router keeps to itself; requests of other methods skip the filter.

The method is matched rather than computed (``%CEL(…)%``), which would be the dearest thing that
happens to a request in its connection manager.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/router_filter
https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/common/matching/v3/extension_matcher.proto
"""

from __future__ import annotations

from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy.matching import unless_header
from meshd.compile.envoy.wellknown import extension, packed

FILTER: Final = "meshd.retry_idempotent"
_METHODS: Final = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
PATTERN: Final = "|".join(_METHODS)
"""A regular expression for the whole of a method's name."""
_CONDITION: Final = "reset"

NOT_SENT: Final = "x-meshd-not-sent"
"""Response header by which a server's proxy says to its client's that it could not connect to the
application, so that the request may be made again, whatever its method. Workloads do not see it."""


def idempotence_filter() -> extension_matcher_pb2.ExtensionWithMatcher:
    """Return the filter's configuration, for HTTP connection managers."""
    condition = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key="x-envoy-retry-on", value=_CONDITION),
        append_action=base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD,
    )
    mutations = header_mutation_pb2.Mutations(
        request_mutations=[mutation_rules_pb2.HeaderMutation(append=condition)]
    )
    return extension_matcher_pb2.ExtensionWithMatcher(
        extension_config=extension(
            "envoy.filters.http.header_mutation",
            header_mutation_pb2.HeaderMutation(mutations=mutations),
        ),
        xds_matcher=unless_header(":method", PATTERN, skip_action_pb2.SkipFilter()),
    )


def never() -> dict[str, any_pb2.Any]:
    """Return the part of a route's ``typed_per_filter_config`` that repeats nothing."""
    return {FILTER: packed(route_components_pb2.FilterConfig(disabled=True))}
