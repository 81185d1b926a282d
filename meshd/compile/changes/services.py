"""Tells which services differ between two snapshots, and which of them in endpoints alone.

The latter changes are the most frequent ones: endpoints come and go, and become ready or unready.
Only load assignments of their services, and the accounts in the clusters of these, depend on them
as long as other facts about endpoints stay: the addresses of headless services, and labels that
rules compare with those of clients. What the ports of this node's workloads decide is told
elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import msgspec

from meshd.api.locality import NETWORK
from meshd.compile.changes.rules import hosts_of_changed_rules
from meshd.compile.upstream.nearness import compared_labels
from meshd.compile.upstream.shape import outline
from meshd.model.service import Place, Preference, Resolution, ServiceRecord
from meshd.model.snapshot import Snapshot

_ELSEWHERE: Final = frozenset(
    {
        "authorization_policies",
        "destination_rules",
        "gateways",
        "peer_authentications",
        "request_authentications",
        "revision",
        "secrets",
        "services",
        "short_way",
        "token_keys",
        "virtual_services",
        "workloads",
    }
)
_SAME: Final = tuple(
    field.name for field in msgspec.structs.fields(Snapshot) if field.name not in _ELSEWHERE
)
"""The fields in which the snapshots may not differ."""
_IN_CLUSTERS: Final = frozenset({Resolution.DNS, Resolution.DNS_ROUND_ROBIN})
"""The clusters of these services contain their endpoints."""


class Changed(NamedTuple):
    """A service of which nothing but endpoints has changed."""

    before: ServiceRecord
    after: ServiceRecord


class Replaced(NamedTuple):
    """A service that has come, gone, or changed in more than endpoints, or in its DestinationRules:
    then the service itself may be the same."""

    before: ServiceRecord | None
    after: ServiceRecord | None

    @property
    def records(self) -> tuple[ServiceRecord, ...]:
        return tuple(one for one in self if one is not None)


class ServiceChanges(NamedTuple):
    """The difference between the services of two snapshots."""

    endpoints: tuple[Changed, ...]
    services: tuple[Replaced, ...]

    def accepting_otherwise(self, places: Collection[Place], new: Snapshot) -> ServiceChanges:
        """Return the changes when other endpoints of some services accept mutual TLS than before,
        whether anything else of these has changed or not."""
        if not places:
            return self
        ends = [one for one in self.endpoints if one.after.place in places]
        known = {record.place for one in self.services for record in one.records}
        known |= {one.after.place for one in ends}
        same = (
            one for one in new.services.values() if one.place in places and one.place not in known
        )
        return ServiceChanges(
            tuple(one for one in self.endpoints if one.after.place not in places),
            (
                *self.services,
                *(Replaced(*one) for one in ends),
                *(Replaced(one, one) for one in same),
            ),
        )

    def reaching_otherwise(self, places: Collection[Place], new: Snapshot) -> ServiceChanges:
        """Return the changes when endpoints of some services are reached by the short way that were
        not before, or the other way round."""
        known = {record.place for one in self.services for record in one.records}
        known |= {one.after.place for one in self.endpoints}
        same = (
            one for one in new.services.values() if one.place in places and one.place not in known
        )
        return self._replace(endpoints=(*self.endpoints, *(Changed(one, one) for one in same)))


def changed_services(old: Snapshot, new: Snapshot) -> ServiceChanges | None:
    """Return the services that differ; None if anything else does, or the order of the others.

    VirtualServices, policies and workloads of this node are not compared, nor which endpoints
    accept mutual TLS, nor who takes the short way. DestinationRules count as a part of their
    service.
    """
    if any(getattr(old, name) != getattr(new, name) for name in _SAME):
        return None
    pairs, hosts = _pairs(old.services, new.services), hosts_of_changed_rules(old, new)
    if pairs is None or hosts is None:
        return None
    endpoints, services = list[Changed](), list[Replaced]()
    for before, after in pairs:
        if before is None or after is None or after.host in hosts:
            services.append(Replaced(before, after))
        elif _differ_in_endpoints(before, after):
            endpoints.append(Changed(before, after))
        else:
            services.append(Replaced(before, after))
    if hosts:
        known = {record.host for one in services for record in one.records}
        same = (one for one in new.services.values() if one.host in hosts - known)
        services += [Replaced(one, one) for one in same]
    found = ServiceChanges(tuple(endpoints), tuple(services))
    return None if _are_compared(found, old, new) else found


def _pairs(
    old: Mapping[str, ServiceRecord], new: Mapping[str, ServiceRecord]
) -> list[tuple[ServiceRecord | None, ServiceRecord | None]] | None:
    """Return each service that differs, before and after; None: the others' order has changed."""
    pairs: list[tuple[ServiceRecord | None, ServiceRecord | None]] = []
    if list(old) != list(new):
        if [key for key in old if key in new] != [key for key in new if key in old]:
            return None
        pairs += [(one, None) for key, one in old.items() if key not in new]
        pairs += [(None, one) for key, one in new.items() if key not in old]
    for key, before in old.items():
        after = new.get(key)
        if before is not after and after is not None and before != after:
            pairs.append((before, after))
    return pairs


def _are_compared(found: ServiceChanges, old: Snapshot, new: Snapshot) -> bool:
    """Return whether rules compare labels of endpoints that have come or gone with those of
    clients."""
    relabelled = {
        key
        for before, after in (*found.endpoints, *found.services)
        for key, _ in _labels(before) ^ _labels(after)
    }
    return bool(relabelled) and not relabelled.isdisjoint(_compared(old) | _compared(new))


def _differ_in_endpoints(before: ServiceRecord, after: ServiceRecord) -> bool:
    """Return whether the difference concerns only the service's assignments and clusters, and the
    ports of workloads."""
    return (
        before.resolution not in _IN_CLUSTERS
        and outline(before) == outline(after)
        and (not before.headless or before.endpoint_addresses == after.endpoint_addresses)
    )


def _labels(record: ServiceRecord | None) -> set[tuple[str, str]]:
    places = record.endpoints if record else ()
    return {label for place in places for label in place.labels.items()}


def _compared(snapshot: Snapshot) -> set[str]:
    """Return the labels of endpoints that are compared with those of clients."""
    keys = {key for rule in snapshot.destination_rules for key in compared_labels(rule.spec)}
    if any(record.prefers is not Preference.ANY for record in snapshot.services.values()):
        keys.add(NETWORK)
    return keys
