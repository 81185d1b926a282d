"""Scopes: clients that see the same mesh.

Route configurations are per scope, so that memory grows with namespaces and not with workloads.
A scope is a namespace; where rules tell clients of a namespace apart by their labels
(``sourceLabels``, a DestinationRule's ``workloadSelector``), a namespace and those labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshd.api.base import exported
from meshd.api.hosts import covers, resolve
from meshd.api.locality import NETWORK, locality_of
from meshd.api.networking import (
    DestinationRule,
    HTTPMatchRequest,
    L4MatchAttributes,
    TLSMatchAttributes,
    VirtualService,
)
from meshd.compile.upstream.counted import counts_for_itself
from meshd.compile.upstream.nearness import compared_labels, may_prefer
from meshd.model.service import Preference, ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload

Label = tuple[str, str]
OTHER: Final = "*"
"""In place of a label's value that no endpoint has. No label can have this one."""
Match = HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes


class Scope(msgspec.Struct, frozen=True, order=True):
    """The clients that see the same mesh."""

    namespace: str
    labels: tuple[Label, ...] = ()
    """Those that a rule asks for and that these clients have."""
    locality: str = ""
    """Where they are, if a rule asks for it; empty: where the node is."""
    client: str = ""
    """Its uid, where a workload shares with no other what is counted."""

    @property
    def name(self) -> str:
        if not self.labels and not self.locality and not self.client:
            return self.namespace
        labels = (f"{key}={value}" for key, value in self.labels)
        # No part has a line break, so that no two scopes have the same text.
        return _digested(self.namespace, "\n".join((*labels, "", self.locality, self.client)))

    @property
    def counted_as(self) -> str:
        """Return the name under which the scope's clients count together."""
        return _digested(self.namespace, self.client) if self.client else self.namespace

    def has(self, labels: Mapping[str, str]) -> bool:
        """Return whether these clients have all of the labels, which must be ones that a rule
        names."""
        return set(labels.items()) <= set(self.labels)

    def is_source_of(self, match: Match) -> bool:
        """Return whether a match's conditions on the client hold."""
        wanted = getattr(match, "source_namespace", None)
        return wanted in {None, "", self.namespace} and self.has(match.source_labels)


NOBODY: Final = Scope("")
"""Clients of no namespace, for which no service has a short name."""


def _digested(namespace: str, text: str) -> str:
    """Return a name for which nobody can find another text: otherwise clients of one scope could
    be given another's routes."""
    return f"{namespace}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def matches_of(service: VirtualService) -> Iterator[Match]:
    """Yield all match conditions of a VirtualService."""
    spec = service.spec
    for route in (*spec.http, *spec.tls, *spec.tcp):
        yield from route.match


def scopes(snapshot: Snapshot, of: Mapping[str, Workload] | None = None) -> dict[str, Scope]:
    """Return the scope of each of some workloads, by uid; None is all of the snapshot."""
    workloads = snapshot.workloads if of is None else of
    namespaces = {workload.namespace for workload in workloads.values()}
    relevant = {namespace: _relevant_labels(snapshot, namespace) for namespace in namespaces}
    compared = {namespace: _compared(snapshot, namespace) for namespace in namespaces}
    by_locality = _is_anything_by_locality(snapshot)
    here = snapshot.options.locality
    found: dict[str, Scope] = {}
    for uid, workload in workloads.items():
        labels = _labels(workload, relevant[workload.namespace], compared[workload.namespace])
        place = locality_of(workload.labels, workload.locality or here) if by_locality else here
        own = uid if counts_for_itself(workload.annotations) else ""
        found[uid] = Scope(workload.namespace, labels, "" if place == here else place, own)
    return found


def _labels(workload: Workload, relevant: set[Label], compared: set[Label]) -> tuple[Label, ...]:
    kept: list[Label] = []
    for label in workload.labels.items():
        if label in relevant or label in compared:
            kept.append(label)
        elif (label[0], OTHER) in compared:
            kept.append((label[0], OTHER))
    return tuple(sorted(kept))


def _is_anything_by_locality(snapshot: Snapshot) -> bool:
    return any(
        service.prefers is not Preference.ANY for service in snapshot.services.values()
    ) or any(may_prefer(rule.spec) for rule in snapshot.destination_rules)


def _compared(snapshot: Snapshot, namespace: str) -> set[Label]:
    """Return the labels of clients that rules compare with those of endpoints, with endpoints'
    values.

    Other values are all one, ``OTHER``: none of them is an endpoint's. So there are no more scopes
    than values that a service's own endpoints have.
    """
    found: set[Label] = set()
    for rule in snapshot.destination_rules:
        keys = compared_labels(rule.spec)
        if keys and exported(rule.spec.export_to, rule.metadata.namespace, namespace):
            found |= _of_endpoints(keys, _ruled(rule, snapshot))
    preferring = [one for one in snapshot.services.values() if one.prefers is not Preference.ANY]
    return found | _of_endpoints({NETWORK}, preferring) if preferring else found


def _ruled(rule: DestinationRule, snapshot: Snapshot) -> Iterator[ServiceRecord]:
    owner, domain = rule.metadata.namespace, snapshot.options.domain
    host = resolve(rule.spec.host, owner, domain, snapshot.services)
    return (one for one in snapshot.services.values() if covers(host, one.host))


def _of_endpoints(keys: Collection[str], services: Iterable[ServiceRecord]) -> set[Label]:
    found = {
        (key, endpoint.labels[key])
        for service in services
        for endpoint in service.endpoints
        for key in keys
        if key in endpoint.labels
    }
    return found | {(key, OTHER) for key in keys}


def _relevant_labels(snapshot: Snapshot, namespace: str) -> set[Label]:
    """Return the labels by which a rule tells clients of the namespace apart."""
    found: set[Label] = set()
    for service in snapshot.virtual_services:
        if not exported(service.spec.export_to, service.metadata.namespace, namespace):
            continue
        for match in matches_of(service):
            if getattr(match, "source_namespace", None) in {None, "", namespace}:
                found |= set(match.source_labels.items())
    for rule in snapshot.destination_rules:
        if rule.spec.workload_selector and rule.metadata.namespace == namespace:
            found |= set(rule.spec.workload_selector.match_labels.items())
    return found
