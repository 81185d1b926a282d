"""Tells whether no more depends on services that have changed than there are shortcuts for.

What does: their own clusters, assignments and virtual hosts, virtual hosts whose routes lead to
them, the listeners of clients, and the ports of this node's workloads. What may be more: the names
that objects use for other services, names and addresses that several services have, gateways,
copies of requests, and clients that rules tell apart by a service's endpoints.
"""

from __future__ import annotations

from meshd.api.hosts import resolve
from meshd.compile.changes.readiness import with_readiness
from meshd.compile.changes.services import Changed, Replaced, ServiceChanges
from meshd.compile.compiled import Last
from meshd.compile.policy.acceptance import Acceptance
from meshd.compile.visibility.index import MeshIndex
from meshd.model.service import Preference, ServiceRecord
from meshd.model.snapshot import Snapshot


def are_alone(
    changes: ServiceChanges, last: Last, snapshot: Snapshot, acceptance: Acceptance
) -> bool:
    """Return whether a compilation may go on from the last one with these services changed.

    ``acceptance``: that of the snapshot. The gateways that were there before and those that are
    there now both count.
    """
    accepting = {id(one): one for one in (last.acceptance, acceptance)}.values()
    for one in changes.endpoints:
        if not all(_is_of_service(one, each) for each in accepting):
            return False
    if not changes.services:
        return True
    if any("@" in key for key in (*last.snapshot.services, *snapshot.services)):
        return False  # Several namespaces have one host.
    return not any(
        each.depends_on(record)
        for each in accepting
        for one in changes.services
        for record in one.records
    ) and all(_is_alone(one, last, snapshot) for one in changes.services)


def _is_of_service(changed: Changed, acceptance: Acceptance) -> bool:
    """Return whether all other services accept mutual TLS as before."""
    if with_readiness(changed.before, changed.after) == changed.after:
        return True
    return not any(map(acceptance.depends_on, changed))


def _is_alone(changed: Replaced, last: Last, snapshot: Snapshot) -> bool:
    if not all(map(_is_plain, changed.records)):
        return False
    (host,) = {record.host for record in changed.records}
    if host in last.index.copied:
        return False
    leading = last.index.mentions.get(host, ())
    of_mesh = (routing for routing in leading if routing.is_of_mesh)
    if any(name.startswith("*") for routing in of_mesh for name in routing.hosts):
        return False
    return _means_the_same(host, last.index, last.snapshot, snapshot)


def _is_plain(record: ServiceRecord) -> bool:
    return (
        not record.closed
        and not record.apart
        and not record.host.startswith("*")
        and record.prefers is Preference.ANY
    )


def _means_the_same(host: str, index: MeshIndex, old: Snapshot, new: Snapshot) -> bool:
    """Return whether objects name the same services as before, by whatever names."""
    domain = new.options.domain
    if (host in old.services) == (host in new.services):
        return True
    labels = host.split(".")
    if len(labels) == 1 or (len(labels) == 3 and labels[2] == "svc"):
        return False
    if f"{host}.svc.{domain}" in old.services or f"{host}.svc.{domain}" in new.services:
        return False
    # Only ``NAME.NAMESPACE`` is read otherwise while there is such a service.
    short = host.removesuffix(f".svc.{domain}")
    for rule in new.destination_rules:
        named, owner = rule.spec.host, rule.metadata.namespace
        before = resolve(named, owner, domain, old.services)
        if before != resolve(named, owner, domain, new.services):
            return False
    return short not in index.mentions and not any(
        routing.names_shortly(short) for routing in index.mentions.get(host, ())
    )
