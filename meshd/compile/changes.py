"""Decides which way a compilation takes: on from the last one, or anew.

What has changed is told part by part. Each part is a shortcut of its own, which makes no more than
what depends on it. Where it is not certain that nothing else does, all is compiled.
"""

from __future__ import annotations

import dataclasses

from meshd.compile.acceptance import Acceptance
from meshd.compile.client_changes import changed_clients
from meshd.compile.clients import Clients
from meshd.compile.compiled import Last
from meshd.compile.endpoint_changes import Changed, changed_endpoints
from meshd.compile.http.delegation import delegated
from meshd.compile.policy.short_way import reachable
from meshd.compile.readiness import with_readiness
from meshd.compile.rerouting import Rerouted, rerouted
from meshd.compile.scope import Scope
from meshd.model.snapshot import Snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What differs from the last compilation, each with a shortcut of its own."""

    endpoints: tuple[Changed, ...]
    """The services whose endpoints have changed."""
    routes: Rerouted
    clients: Clients
    """The workloads that are served now."""


def change(last: Last, snapshot: Snapshot, serving: frozenset[str]) -> Change | None:
    """Return what has changed since the last compilation; None: more has than there are shortcuts
    for.

    ``serving``: uids of the workloads that are to be served.
    """
    if reachable(snapshot) != last.acceptance.near:
        return None
    endpoints = changed_endpoints(last.snapshot, snapshot)
    if endpoints is None or not all(_is_of_service(one, last.acceptance) for one in endpoints):
        return None
    routes = rerouted(last.index.virtual_services, delegated(snapshot).virtual_services)
    clients = changed_clients(last.clients, snapshot, serving, endpoints, last.index.rules)
    if routes is None or clients is None or _scopes(clients) != set(last.views):
        return None
    return Change(endpoints, routes, clients)


def _is_of_service(changed: Changed, acceptance: Acceptance) -> bool:
    """Return whether all other services accept mutual TLS as before."""
    if with_readiness(changed.before, changed.after) == changed.after:
        return True
    return not any(map(acceptance.depends_on, (changed.before, changed.after)))


def _scopes(clients: Clients) -> set[Scope]:
    return {client.scope for client in clients.values()}
