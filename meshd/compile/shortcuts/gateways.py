"""Goes on from the last compilation after Gateways, routes that name them, or services changed.

Made anew are the listeners and route tables of the gateways among this node's workloads. What of
them comes out as before is the very same message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from meshd.compile.clients import Client, Clients, OfClients
from meshd.compile.compiled import Kind, Last, by_name, replaced
from meshd.compile.memo import Memo
from meshd.compile.names import gateway_listener_name
from meshd.compile.shared.gateways import gateway_listeners, gateway_tables
from meshd.model.pool import LIMITS, Pool


def with_gateways(last: Last, clients: Clients, memo: Memo) -> Last:
    """Return the result with the gateways among these clients in place of the last ones, which are
    the same workloads."""
    gone = [one for one in last.clients.values() if one.gateway.ports]
    come = [one for one in clients.values() if one.gateway.ports]
    if not gone and not come:
        return last
    traffic = dict(last.compiled[Pool.TRAFFIC])
    is_served = last.credentials.is_served
    listeners = (
        one for each in come for one in gateway_listeners(each, last.views[each.scope], is_served)
    )
    tables = (one for each in come for one in gateway_tables(each, last.views[each.scope]))
    before = traffic[Kind.LISTENER]
    traffic[Kind.LISTENER] = replaced(before, _listeners(gone), by_name(listeners))
    traffic[Kind.ROUTE] = replaced(traffic[Kind.ROUTE], _tables(gone), by_name(tables))
    if traffic[Kind.LISTENER].keys() != before.keys():
        limits = OfClients(last.snapshot, clients, memo).limits(traffic[Kind.LISTENER])
        traffic[Kind.RUNTIME] = replaced(traffic[Kind.RUNTIME], (), {LIMITS: limits})
    return dataclasses.replace(last, compiled={**last.compiled, Pool.TRAFFIC: traffic})


def _listeners(gateways: Iterable[Client]) -> Iterator[str]:
    for one in gateways:
        yield from (gateway_listener_name(one.workload.uid, port) for port in one.gateway.ports)


def _tables(gateways: Iterable[Client]) -> Iterator[str]:
    for one in gateways:
        yield from (name for name, _, _ in one.gateway.route_configurations())
