"""Decides which way a compilation takes: on from the last one, or anew.

What has changed is told part by part. Each part is a shortcut of its own, which makes no more than
what depends on it. Where it is not certain that nothing else does, all is compiled.
"""

from __future__ import annotations

import dataclasses

from meshd.compile.changes.alone import are_alone
from meshd.compile.changes.clients import changed_clients
from meshd.compile.changes.routes import Rerouted, rerouted
from meshd.compile.changes.services import ServiceChanges, changed_services
from meshd.compile.clients import Clients
from meshd.compile.compiled import Last
from meshd.compile.policy.acceptance import Acceptance
from meshd.compile.visibility.scope import Scope
from meshd.model.snapshot import Snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What differs from the last compilation, each with a shortcut of its own."""

    acceptance: Acceptance
    services: ServiceChanges
    routes: Rerouted
    clients: Clients
    """The workloads that are served now."""
    reaches_gateways: bool
    """What gateways open, or where they lead, may not be as before."""

    @property
    def scopes(self) -> set[Scope]:
        """Return the scopes that have clients now."""
        return {client.scope for client in self.clients.values()}


def change(last: Last, snapshot: Snapshot, serving: frozenset[str]) -> Change | None:
    """Return what has changed since the last compilation; None: more has than there are shortcuts
    for.

    ``snapshot``: see ``Last.snapshot``; ``serving``: uids of the workloads that are to be served.
    """
    services = changed_services(last.snapshot, snapshot)
    acceptance = last.acceptance.under(snapshot)
    if services is not None:
        records = snapshot.services.values()
        differing = acceptance.differing(last.acceptance, records)
        reached = acceptance.reaching(last.acceptance, records)
        services = services.accepting_otherwise(differing, snapshot)
        services = services.reaching_otherwise(reached, snapshot)
    if services is None or not are_alone(services, last, snapshot, acceptance):
        return None
    routes = rerouted(last.index.virtual_services, snapshot.virtual_services)
    rules = last.index.with_rules(snapshot).rules
    clients = changed_clients(last.clients, last.snapshot, snapshot, serving, services, rules)
    if routes is None or clients is None:
        return None
    reaches_gateways = (
        bool(services.services)
        or routes.is_of_gateways
        or snapshot.gateways != last.snapshot.gateways
    )
    found = Change(acceptance, services, routes, clients, reaches_gateways)
    is_scoped_alike = found.scopes == set(last.views)
    return found if is_scoped_alike or _may_change_scopes(found, last) else None


def _may_change_scopes(found: Change, last: Last) -> bool:
    """Return whether scopes may come and go with their clients: a gateway's clients have rules of
    their own, and so have copies of requests."""
    return (
        not found.services.services
        and found.routes.virtual_services == last.index.virtual_services
        and not last.index.copied
        and not any(client.gateway.ports for client in last.clients.values())
    )
