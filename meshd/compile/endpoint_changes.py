"""Tells whether two snapshots differ in no more than endpoints that only their own services need.

Such changes are the most frequent ones: endpoints come and go, and become ready or unready. Only
load assignments of their services, and the accounts in the clusters of these, depend on them as
long as other facts about endpoints stay: the addresses of headless services, and labels that rules
compare with those of clients. What the ports of this node's workloads decide is told elsewhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from meshd.api.locality import NETWORK
from meshd.compile.upstream.nearness import compared_labels
from meshd.compile.upstream.shape import outline
from meshd.model.service import Preference, Resolution, ServiceRecord
from meshd.model.snapshot import Snapshot

_ELSEWHERE: Final = frozenset({"revision", "services", "virtual_services", "workloads"})
_SAME: Final = tuple(
    field.name for field in msgspec.structs.fields(Snapshot) if field.name not in _ELSEWHERE
)
"""The fields in which the snapshots may not differ."""
_IN_CLUSTERS: Final = frozenset({Resolution.DNS, Resolution.DNS_ROUND_ROBIN})
"""The clusters of these services contain their endpoints."""


class Changed(NamedTuple):
    """A service whose endpoints have changed."""

    key: str
    """Its key in the snapshot."""
    before: ServiceRecord
    after: ServiceRecord


def changed_endpoints(old: Snapshot, new: Snapshot) -> tuple[Changed, ...] | None:
    """Return the services whose endpoints have changed; None if anything else has.

    VirtualServices and workloads of this node are not compared, nor which endpoints accept mutual
    TLS.
    """
    if any(getattr(old, name) != getattr(new, name) for name in _SAME):
        return None
    if list(old.services) != list(new.services):
        return None
    pairs = zip(old.services.items(), new.services.values(), strict=True)
    changed = tuple(
        Changed(key, before, after)
        for (key, before), after in pairs
        if before is not after and before != after
    )
    if not all(_differ_in_endpoints(one.before, one.after) for one in changed):
        return None
    relabelled = {key for one in changed for key, _ in _labels(one.before) ^ _labels(one.after)}
    return None if relabelled and relabelled & _compared(new) else changed


def _differ_in_endpoints(before: ServiceRecord, after: ServiceRecord) -> bool:
    """Return whether the difference concerns only the service's assignments and clusters, and the
    ports of workloads."""
    return (
        before.resolution not in _IN_CLUSTERS
        and outline(before) == outline(after)
        and (not before.headless or before.endpoint_addresses == after.endpoint_addresses)
    )


def _labels(record: ServiceRecord) -> set[tuple[str, str]]:
    return {label for place in record.endpoints for label in place.labels.items()}


def _compared(snapshot: Snapshot) -> set[str]:
    """Return the labels of endpoints that are compared with those of clients."""
    keys = {key for rule in snapshot.destination_rules for key in compared_labels(rule.spec)}
    if any(record.prefers is not Preference.ANY for record in snapshot.services.values()):
        keys.add(NETWORK)
    return keys
