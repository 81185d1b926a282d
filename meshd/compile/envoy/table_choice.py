"""Chooses a route table by the port that a client wanted, for a manager that serves all ports.

A manager of requests takes as much memory as the rest of a workload's listener, so that a workload
has one, whatever the number of ports. Envoy calls the tables among which it chooses scoped routes,
and chooses by a header: the manager writes this one before it looks for a route, whatever clients
have sent, and each table removes it. The resources that lead to tables are a collection for each
scope, of which the managers of other scopes are not told.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_conn_man/route_matching
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.route.v3 import scoped_route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from meshd.compile.envoy.wellknown import TABLE_HEADER, extension, over_ads

_Scoped = http_connection_manager_pb2.ScopedRoutes
_Choosable = scoped_route_pb2.ScopedRouteConfiguration
_NAME: Final = "clients"
_NONE: Final = "none"
"""In place of a port."""


@functools.lru_cache(maxsize=1024)
def tables_by_port(scope: str) -> http_connection_manager_pb2.ScopedRoutes:
    """Return where a manager finds the tables of a scope. It is shared: copy, never change."""
    header = _Scoped.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor(
        name=TABLE_HEADER, index=0
    )
    fragment = _Scoped.ScopeKeyBuilder.FragmentBuilder(header_value_extractor=header)
    return _Scoped(
        name=_NAME,
        scope_key_builder=_Scoped.ScopeKeyBuilder(fragments=[fragment]),
        rds_config_source=over_ads(),
        scoped_rds=http_connection_manager_pb2.ScopedRds(
            scoped_rds_config_source=over_ads(), srds_resources_locator=_resource(scope, "*")
        ),
    )


@functools.cache
def asking() -> extension_pb2.TypedExtensionConfig:
    """Return the filter that names the port in each request, before there is a route. It is shared:
    copy, never change."""
    append = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=TABLE_HEADER, value="%DOWNSTREAM_LOCAL_PORT%"),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    mutation = mutation_rules_pb2.HeaderMutation(append=append)
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        header_mutation_pb2.HeaderMutation(mutations=[mutation]),
    )


def choosable_tables(
    scopes: Iterable[str], tables: Iterable[str]
) -> dict[str, Callable[[], _Choosable]]:
    """Return by name how to make the resources by which managers of these scopes find their tables.

    Each scope has one that no request asks for: Envoy waits for a first one before it uses a
    listener, whether there are tables or not.
    """
    made = {_resource(scope, _NONE): functools.partial(_nothing, scope) for scope in scopes}
    for table in tables:
        port, _, scope = table.partition("@")
        made[_resource(scope, port)] = functools.partial(_choosable, table, port, scope)
    return made


def _choosable(table: str, port: str, scope: str) -> _Choosable:
    made = _named(scope, port)
    made.route_configuration_name = table
    return made


def _nothing(scope: str) -> _Choosable:
    made = _named(scope, _NONE)
    made.route_configuration.name = _NONE
    return made


def _named(scope: str, port: str) -> _Choosable:
    key = _Choosable.Key(fragments=[_Choosable.Key.Fragment(string_key=port)])
    return _Choosable(name=_resource(scope, port), key=key)


def _resource(scope: str, port: str) -> str:
    """Return a name in the collection of a scope: a manager is told of its own scope's only."""
    return f"xdstp:///{_Choosable.DESCRIPTOR.full_name}/{scope}/{port}"
