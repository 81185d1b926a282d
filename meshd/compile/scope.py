"""Scopes: clients that see the same mesh.

Route configurations are per scope, so that memory grows with namespaces and not with workloads.
A scope is a namespace; where rules tell clients of a namespace apart by their labels
(``sourceLabels``, a DestinationRule's ``workloadSelector``), a namespace and those labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from meshd.model.snapshot import Snapshot
from meshd.model.traffic import (
    HTTPMatchRequest,
    L4MatchAttributes,
    TLSMatchAttributes,
    VirtualService,
)

Label = tuple[str, str]
Match = HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes


class Scope(msgspec.Struct, frozen=True, order=True):
    """Who looks at the mesh."""

    namespace: str
    labels: tuple[Label, ...] = ()
    """Those that a rule asks for and that these clients have."""

    @property
    def name(self) -> str:
        if not self.labels:
            return self.namespace
        text = "\n".join(f"{key}={value}" for key, value in self.labels)
        return f"{self.namespace}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether these clients have all of the labels, which must be ones that a rule names."""
        return set(labels.items()) <= set(self.labels)

    def is_source_of(self, match: Match) -> bool:
        """Whether a match's conditions on the client hold."""
        wanted = getattr(match, "source_namespace", None)
        return wanted in {None, "", self.namespace} and self.has(match.source_labels)


def matches_of(service: VirtualService) -> Iterator[Match]:
    """All match conditions of a VirtualService."""
    spec = service.spec
    for route in (*spec.http, *spec.tls, *spec.tcp):
        yield from route.match


def exported(export_to: tuple[str, ...], owner: str, client: str) -> bool:
    """Whether what namespace ``owner`` exports to these is seen from namespace ``client``."""
    if not export_to:
        return True
    return "*" in export_to or client in export_to or ("." in export_to and owner == client)


def scopes(snapshot: Snapshot) -> dict[str, Scope]:
    """The scope of each workload, by uid."""
    relevant = {
        namespace: _relevant_labels(snapshot, namespace)
        for namespace in {workload.namespace for workload in snapshot.workloads.values()}
    }
    return {
        uid: Scope(
            workload.namespace,
            tuple(sorted(relevant[workload.namespace] & set(workload.labels.items()))),
        )
        for uid, workload in snapshot.workloads.items()
    }


def _relevant_labels(snapshot: Snapshot, namespace: str) -> set[Label]:
    """Labels by which a rule tells clients of the namespace apart."""
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
