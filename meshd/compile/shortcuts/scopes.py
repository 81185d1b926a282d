"""Goes on from the last compilation after the first workload of a scope has come to this node, or
the last one has gone.

Made anew are the scope's own listeners, tables and clusters, and the clusters of services for which
other rules hold there than elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from meshd.compile.compiled import Kind, Last, Printed, Ruled, by_name, replaced, reruled
from meshd.compile.envoy.clusters import cluster
from meshd.compile.http.routes import http_ports
from meshd.compile.memo import Memo
from meshd.compile.names import client_routes, scope_listener_name
from meshd.compile.shared.client_tables import client_tables
from meshd.compile.shared.listeners import ScopeListeners
from meshd.compile.traffic.scope_listeners import scope_upstreams
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.pool import Pool
from meshd.model.service import Place, ServiceRecord

_Rules = Mapping[tuple[Place, str], RuleSet]
"""By the service and the variant."""


def with_scopes(last: Last, scopes: Collection[Scope], memo: Memo) -> Last | None:
    """Return the result for clients of these scopes; None: clusters need secrets."""
    if set(scopes) == set(last.views):
        return last
    gone = [view for scope, view in last.views.items() if scope not in scopes]
    come = [View.of(last.index, scope) for scope in scopes if scope not in last.views]
    views = {scope: view for scope, view in last.views.items() if scope in scopes}
    ended = _rules_apart(gone, [*views.values(), *come])
    begun = _rules_apart(come, last.views.values())
    views |= {view.scope: view for view in come}
    old = [one for one in _all(last.ruled) if _key(one) in ended]
    new = [Ruled(service, begun[key], frozenset()) for key, service in _services(last, begun)]
    if any(one.needs_secrets for one in (*old, *new)):
        return None
    ruled = _ruled(last.ruled, old, new)
    places = {place for place, _ in (*ended, *begun)}
    now = [one for place in places for one in ruled[place]]
    traffic = reruled(last.compiled[Pool.TRAFFIC], old, now, last.snapshot.options)
    listeners = ScopeListeners(last.index, last.snapshot, memo)
    for kind in (Kind.CLUSTER, Kind.LISTENER, Kind.ROUTE):
        parts = (one for view in come for one in _parts(kind, view, listeners, memo))
        lost = (name for view in gone for name in _names(kind, view))
        traffic[kind] = replaced(traffic[kind], lost, by_name(parts))
    return dataclasses.replace(
        last,
        views=views,
        compiled={**last.compiled, Pool.TRAFFIC: traffic},
        ruled=ruled,
        requests=listeners.requests(views),
    )


def _rules_apart(views: Iterable[View], others: Collection[View]) -> _Rules:
    """Return the rules for services that hold in some of these views and in no other."""
    found: dict[tuple[Place, str], RuleSet] = {}
    for view in views:
        for host, record in view.services.items():
            rules, place = view.rules(host), record.place
            if not any(_holds(place, rules, other) for other in others):
                found[place, rules.variant] = rules
    return found


def _holds(place: Place, rules: RuleSet, view: View) -> bool:
    """Return whether a service has these rules in a view, too."""
    host, _ = place
    record = view.services.get(host)
    if record is None or record.place != place:
        return False
    return view.rules(host).variant == rules.variant


def _services(last: Last, rules: _Rules) -> Iterator[tuple[tuple[Place, str], ServiceRecord]]:
    """Yield the services for which rules hold, as they are now."""
    if not rules:
        return
    records = {one.place: one for one in last.snapshot.services.values()}
    for key in rules:
        yield key, last.acceptance.accepted(records[key[0]])


def _all(ruled: Mapping[Place, Iterable[Ruled]]) -> Iterator[Ruled]:
    return (one for those in ruled.values() for one in those)


def _key(ruled: Ruled) -> tuple[Place, str]:
    return ruled.service.place, ruled.rules.variant


def _ruled(
    before: Mapping[Place, Sequence[Ruled]], old: Iterable[Ruled], new: Iterable[Ruled]
) -> dict[Place, Sequence[Ruled]]:
    """Return the services without the old and with the new rules for them."""
    found, ended = dict(before), {_key(one) for one in old}
    for place in {place for place, _ in ended}:
        found[place] = [one for one in found[place] if _key(one) not in ended]
    for one in new:
        place, _ = _key(one)
        found[place] = [*found.get(place, ()), one]
    return found


def _parts(kind: Kind, view: View, listeners: ScopeListeners, memo: Memo) -> Iterable[Printed]:
    """Return what a scope has to itself."""
    match kind:
        case Kind.CLUSTER:
            return map(cluster, scope_upstreams(view.scope.name))
        case Kind.LISTENER:
            return listeners.of(view)
        case _:
            return client_tables(view, memo)


def _names(kind: Kind, view: View) -> Iterable[str]:
    """Return the names of what a scope has to itself."""
    name = view.scope.name
    if kind is Kind.ROUTE:
        return (client_routes(port, name) for port in http_ports(view))
    return (scope_listener_name(name, inspecting=one) for one in (False, True))
