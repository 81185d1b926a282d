"""Chooses a route table by the port that a client wanted, for a manager that serves all ports.

A manager of requests takes as much memory as the rest of a workload's listener, so that a workload
has one, whatever the number of ports. Envoy calls the tables among which it chooses scoped routes,
and chooses by a header: the manager writes this one before it looks for a route, whatever clients
have sent, and each table removes it.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_conn_man/route_matching
"""

from __future__ import annotations

import functools
from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.route.v3 import scoped_route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from meshd.compile.envoy.wellknown import TABLE_HEADER, extension, literal, over_ads

_Scoped = http_connection_manager_pb2.ScopedRoutes
_NAME: Final = "clients"


@functools.cache
def tables_by_port() -> http_connection_manager_pb2.ScopedRoutes:
    """Return where a manager finds its tables. It is shared: copy, never change."""
    header = _Scoped.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor(
        name=TABLE_HEADER, index=0
    )
    fragment = _Scoped.ScopeKeyBuilder.FragmentBuilder(header_value_extractor=header)
    return _Scoped(
        name=_NAME,
        scope_key_builder=_Scoped.ScopeKeyBuilder(fragments=[fragment]),
        rds_config_source=over_ads(),
        scoped_rds=http_connection_manager_pb2.ScopedRds(scoped_rds_config_source=over_ads()),
    )


def asking(scope: str) -> extension_pb2.TypedExtensionConfig:
    """Return the filter that names the table in each request, before there is a route."""
    append = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(
            key=TABLE_HEADER, value=f"%DOWNSTREAM_LOCAL_PORT%@{literal(scope)}"
        ),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    mutation = mutation_rules_pb2.HeaderMutation(append=append)
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        header_mutation_pb2.HeaderMutation(mutations=[mutation]),
    )


def choosable(table: str) -> scoped_route_pb2.ScopedRouteConfiguration:
    """Return the resource by which managers find a table of clients, whose name is a port and a
    scope, as they ask for it."""
    fragment = scoped_route_pb2.ScopedRouteConfiguration.Key.Fragment(string_key=table)
    return scoped_route_pb2.ScopedRouteConfiguration(
        name=table,
        route_configuration_name=table,
        key=scoped_route_pb2.ScopedRouteConfiguration.Key(fragments=[fragment]),
    )
