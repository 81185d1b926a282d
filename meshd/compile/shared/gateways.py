"""Listeners and route tables of a gateway's workload, as the view of its scope has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from meshd.compile.clients import Client, identity_of
from meshd.compile.envoy.listeners import listener
from meshd.compile.envoy.routes import route_table
from meshd.compile.gateway.gateway import workload_listeners
from meshd.compile.gateway.routes import gateway_route_table
from meshd.compile.visibility.view import View


def gateway_listeners(
    client: Client, view: View, is_served: Callable[[str], bool]
) -> Iterator[Message]:
    """Yield the listeners of a gateway; ``is_served``: whether proxies are sent a secret of this
    name."""
    plans = workload_listeners(
        client.workload,
        identity_of(client.workload, view.options),
        client.gateway,
        view.as_gateway(),
        view.options,
        is_served,
        client.guard,
    )
    return map(listener, plans)


def gateway_tables(client: Client, view: View) -> Iterator[Message]:
    """Yield the route tables of a gateway."""
    seen = view.as_gateway()
    for name, port, servers in client.gateway.route_configurations():
        yield route_table(gateway_route_table(seen, name, port, servers, client.guard))
