"""Tells which workloads of this node come, go or change, where no more depends on that than the
listeners of these and what all of the node's workloads share."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping

from meshd.compile.changes.readiness import is_the_same
from meshd.compile.changes.services import ServiceChanges
from meshd.compile.clients import Client, Clients
from meshd.compile.gateway.ports import NOT_A_GATEWAY, GatewayPorts, gateway_ports, selecting
from meshd.compile.plan.authorization import Authorization
from meshd.compile.policy.authorization import JUDGED_BY, authorization, policies_of
from meshd.compile.policy.peer_authentication import PeerPolicy, peer_policy
from meshd.compile.policy.served import served_ports
from meshd.compile.upstream.destination_rules import RuleIndex
from meshd.compile.visibility.scope import scopes
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


def changed_clients(  # noqa: PLR0917
    before: Clients,
    old: Snapshot,
    snapshot: Snapshot,
    serving: Collection[str],
    services: ServiceChanges,
    rules: RuleIndex,
) -> Clients | None:
    """Return all workloads that are served, those of ``before`` that have not changed; None: a
    gateway may be among the others.

    ``services``: those that have changed since ``before``, which is of ``old``; else the snapshots
    differ in workloads, routes, Gateways and policies only.
    """
    wanted = {uid: one for uid, one in sorted(snapshot.workloads.items()) if uid in serving}
    moved = {
        uid: one
        for uid, one in wanted.items()
        if uid not in before or not is_the_same(before[uid].workload, one)
    }
    sent = {uid for uid in _sent_otherwise(services, wanted) if uid not in moved}
    guards = _guards(before, old, snapshot, wanted, moved)
    policies = _policies(before, old, snapshot, wanted, moved)
    known = [(uid, one) for uid, one in before.items() if uid in wanted]
    judged = {uid for uid, one in known if one.guard != guards.get(uid, one.guard)}
    judged |= {uid for uid, one in known if one.policy != policies.get(uid, one.policy)}
    opened = _opened(before, old, snapshot)
    if opened is None:
        return None
    changed = moved.keys() | sent | judged | opened.keys()
    if not changed and wanted.keys() == before.keys():
        return before
    lost = [client for uid, client in before.items() if uid not in wanted or uid in moved]
    if any(client.gateway.ports for client in (*lost, *(before[uid] for uid in sent | judged))):
        return None
    selection = snapshot.options.gateway_selection
    if any(selecting(snapshot.gateways, one, selection) for one in moved.values()):
        return None
    found = scopes(snapshot, moved)
    served = served_ports(snapshot.services, rules, moved.keys() | sent)
    return {
        uid: before[uid]
        if uid not in changed
        else Client(
            workload,
            found[uid] if uid in moved else before[uid].scope,
            opened.get(uid, NOT_A_GATEWAY),
            served.get(uid, {}) if uid in moved or uid in sent else before[uid].served,
            policies[uid] if uid in policies else before[uid].policy,
            guards[uid] if uid in guards else before[uid].guard,
        )
        for uid, workload in wanted.items()
    }


def _opened(before: Clients, old: Snapshot, new: Snapshot) -> dict[str, GatewayPorts] | None:
    """Return the ports of gateways that open others than before; None: one was none before, or is
    none any more, or they need other Secrets."""
    if new.gateways == old.gateways:
        return {}
    now, found = gateway_ports(new), dict[str, GatewayPorts]()
    for uid, client in before.items():
        ports = now.get(uid, NOT_A_GATEWAY)
        if ports != client.gateway:
            needs = (
                set(one.secrets_needed(client.workload.namespace))
                for one in (ports, client.gateway)
            )
            if (
                not ports.ports
                or not client.gateway.ports
                or len({frozenset(each) for each in needs}) > 1
            ):
                return None
            found[uid] = ports
    return found


def _guards(
    before: Clients,
    old: Snapshot,
    new: Snapshot,
    wanted: Mapping[str, Workload],
    moved: Container[str],
) -> dict[str, Authorization | None]:
    """Return who may send what to workloads for which that may have changed."""
    policies = policies_of(new)
    is_same = all(getattr(new, name) == getattr(old, name) for name in JUDGED_BY)
    return {
        uid: authorization(policies, workload, new.options)
        for uid, workload in wanted.items()
        if not is_same or uid in moved or uid not in before
    }


def _policies(
    before: Clients,
    old: Snapshot,
    new: Snapshot,
    wanted: Mapping[str, Workload],
    moved: Container[str],
) -> dict[str, PeerPolicy]:
    """Return which connections workloads accept for which that may have changed."""
    policies, root = new.peer_authentications, new.options.root_namespace
    is_same = policies == old.peer_authentications
    return {
        uid: peer_policy(policies, workload, root)
        for uid, workload in wanted.items()
        if not is_same or uid in moved or uid not in before
    }


def _sent_otherwise(changes: ServiceChanges, own: Container[str]) -> Iterator[str]:
    """Yield the workloads of this node to which services may send otherwise than before."""
    for changed in changes.endpoints:
        before, after = (set(_served(one, own)) for one in changed)
        yield from (uid for uid, _, _ in before ^ after)
    for replaced in changes.services:
        for record in replaced.records:
            yield from (uid for uid, _, _ in _served(record, own))


def _served(record: ServiceRecord, own: Container[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the ports of this node's workloads that serve a service."""
    for endpoint in record.endpoints:
        if endpoint.workload in own:
            yield endpoint.workload, endpoint.service_port, endpoint.port
