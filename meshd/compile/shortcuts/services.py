"""Goes on from the last compilation after services, or rules for them, have come, gone or changed.

Made anew are their own clusters and assignments, the virtual hosts that are theirs or lead to them,
and the listeners of clients that choose by the services that they see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping

from meshd.api.protocol import DEFAULT_HTTP_PORT
from meshd.compile.changes.routes import hosts as hosts_of
from meshd.compile.changes.services import Replaced
from meshd.compile.clients import Clients
from meshd.compile.compiled import Kind, Last, Messages, Ruled, by_name, replaced, reruled
from meshd.compile.http.routes import http_ports
from meshd.compile.memo import Memo
from meshd.compile.names import client_routes
from meshd.compile.shared.client_tables import TableEdits, client_table, rerouted_tables
from meshd.compile.shared.listeners import ScopeListeners
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.pool import Pool
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot


def with_services(
    last: Last, changed: Collection[Replaced], snapshot: Snapshot, memo: Memo
) -> Last | None:
    """Return the result after a change of services on which nothing else depends than what the head
    of this module names; None: hosts may have domains in common, or clusters need secrets."""
    index = last.index.with_rules(snapshot)
    if not changed and index is last.index:
        return last
    accepted = {one.after.host: last.acceptance.accepted(one.after) for one in changed if one.after}
    names = {record.host for one in changed for record in one.records}
    index = index.with_services(snapshot.services, accepted)
    views = {scope: view.replaced(index, names) for scope, view in last.views.items()}
    now = dataclasses.replace(last, index=index, views=views)
    seen = (*views.values(), *_of_gateways(last.clients, views))
    ruled = {name: tuple(_ruled(index.services.get(name), seen)) for name in names}
    traffic = dict(last.compiled[Pool.TRAFFIC])
    routes = dict(traffic[Kind.ROUTE])
    old = [one for name in names for one in last.ruled.get((name, ""), ())]
    new = [one for those in ruled.values() for one in those]
    if any(one.needs_secrets for one in (*old, *new)):
        return None
    edits = TableEdits(names, memo)
    for scope, view in views.items():
        if not _edit(routes, last.views[scope], view, names, edits, memo):
            return None
    traffic[Kind.ROUTE] = routes
    listeners = ScopeListeners(index, snapshot, memo)
    made = by_name(one for view in views.values() for one in listeners.of(view))
    traffic[Kind.LISTENER] = replaced(traffic[Kind.LISTENER], (), made)
    traffic = reruled(traffic, old, new, snapshot.options)
    every = {**last.ruled, **{(name, ""): those for name, those in ruled.items()}}
    return dataclasses.replace(
        now,
        compiled={**last.compiled, Pool.TRAFFIC: traffic},
        requests=listeners.requests(views),
        ruled={place: those for place, those in every.items() if those},
    )


def _of_gateways(clients: Clients, views: Mapping[Scope, View]) -> Iterator[View]:
    """Yield the views of the scopes in which a client is a gateway, as gateways have them."""
    scopes = {client.scope: None for client in clients.values() if client.gateway.ports}
    return (views[scope].as_gateway() for scope in scopes)


def _ruled(service: ServiceRecord | None, views: Iterable[View]) -> Iterator[Ruled]:
    """Yield a service with each set of rules that holds for it in some view."""
    seen: set[str] = set()
    for view in views:
        if service is not None and service.host in view.services:
            rules = view.rules(service.host)
            if rules.variant not in seen:
                seen.add(rules.variant)
                yield Ruled(service, rules, frozenset())


def _edit(  # noqa: PLR0917 - a scope before and after, and what all scopes have in common
    routes: Messages,
    before: View,
    view: View,
    names: Collection[str],
    edits: TableEdits,
    memo: Memo,
) -> bool:
    """Write the tables of a scope that depend on services; return whether that was possible."""
    ports = {DEFAULT_HTTP_PORT}
    for name in names:
        for one in (before, view):
            ports.update(record.http_ports if (record := one.services.get(name)) else ())
    there = set(http_ports(view))
    for port in ports:
        table = client_routes(port, view.scope.name)
        if port not in there:
            routes.pop(table, None)
        elif table not in routes:
            routes[table] = client_table(view, port, memo)
        elif (made := edits.edited(view, port, routes[table])) is None:
            return False
        else:
            routes[table] = made
    mentions = {routing: None for name in names for routing in view.index.mentions.get(name, ())}
    others = (host for host in hosts_of(tuple(mentions), view) if host not in names)
    routes.update((one.name, one) for one in rerouted_tables(view, tuple(others), routes, memo))
    return True
