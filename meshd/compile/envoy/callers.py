"""Prints what writes into requests who makes them, on their way to an endpoint of this node.

Where requests go straight to the application, nobody does that behind them. So the client's cluster
does, once the endpoint is chosen: ``x-forwarded-client-cert`` is removed, and written anew for an
endpoint that says whose it is, as those do that are reached by the short way. Each attempt of a
request does so anew, and one that goes over the network leaves without the header.

Gateways and copies of requests, which use the same clusters, say themselves for whom requests are:
theirs skip this, and are read by the server's side.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/header_mutation_filter
"""

from __future__ import annotations

import functools
from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)

from meshd.compile.envoy.assignments import INSIDE
from meshd.compile.envoy.inbound_routes import CLIENT_CERTIFICATE
from meshd.compile.envoy.matching import unless_noted
from meshd.compile.envoy.wellknown import (
    CALLER_STATE,
    REQUESTS,
    REQUESTS_STATE,
    extension,
    packed,
)

_Mutation = mutation_rules_pb2.HeaderMutation
_Option = base_pb2.HeaderValueOption
_Filter = http_connection_manager_pb2.HttpFilter
_SERVER: Final = f"%UPSTREAM_METADATA({INSIDE}:identity)%"
_ELEMENT: Final = f"By={_SERVER};URI=%FILTER_STATE({CALLER_STATE}:PLAIN)%"


@functools.cache
def caller_filters() -> tuple[http_connection_manager_pb2.HttpFilter, ...]:
    """Return the filters of a cluster's requests. They are shared: copy, never change."""
    mutations = header_mutation_pb2.Mutations(
        request_mutations=[
            _Mutation(remove=CLIENT_CERTIFICATE),
            # Nothing is written where the endpoint says nothing, and then nothing is overwritten.
            _written(_SERVER, _Option.ADD_IF_ABSENT),
            _written(_ELEMENT, _Option.OVERWRITE_IF_EXISTS),
        ]
    )
    writes = extension_matcher_pb2.ExtensionWithMatcher(
        extension_config=extension(
            "envoy.filters.http.header_mutation",
            header_mutation_pb2.HeaderMutation(mutations=mutations),
        ),
        xds_matcher=unless_noted(REQUESTS_STATE, REQUESTS, skip_action_pb2.SkipFilter()),
    )
    return (
        _Filter(name="meshd.caller", typed_config=packed(writes)),
        _Filter(
            name="envoy.filters.http.upstream_codec",
            typed_config=packed(upstream_codec_pb2.UpstreamCodec()),
        ),
    )


def _written(text: str, action: base_pb2.HeaderValueOption.HeaderAppendAction) -> _Mutation:
    header = base_pb2.HeaderValue(key=CLIENT_CERTIFICATE, value=text)
    return _Mutation(append=_Option(header=header, append_action=action))
