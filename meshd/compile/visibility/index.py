"""The mesh indexed for the views of its scopes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

from meshd.api.base import exported, exported_to_all
from meshd.api.networking import DestinationRule, VirtualService
from meshd.base.sequence_difference import SequenceDifference
from meshd.compile.memo import Memo
from meshd.compile.upstream.destination_rules import RuleIndex, RuleSet
from meshd.compile.upstream.shape import outline, shape
from meshd.compile.visibility.routings import Routing, RoutingTable, mentioning
from meshd.compile.visibility.seen import Seen, SeenServices, Settings, seen_services
from meshd.model.service import Place, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

Content = tuple[
    tuple[str, ...], tuple[VirtualService, ...], tuple[DestinationRule, ...], MeshOptions
]
"""Names of services, VirtualServices, DestinationRules, options."""


@dataclasses.dataclass(frozen=True)
class MeshIndex:
    """A snapshot indexed for views from many scopes. Built once for each snapshot."""

    options: MeshOptions
    services: Mapping[str, ServiceRecord]
    routings: tuple[Routing, ...]
    rules: RuleIndex
    shapes: Mapping[Place, ServiceRecord]
    """Services without what only their load assignments depend on."""
    content: Content
    """What decides on the index, but for the services that clients see: names of others count."""
    copied: frozenset[str]
    """Hosts to which copies of requests go, and those of extension providers."""
    known_hosts: dict[tuple[str, str, str, str], Seen] = dataclasses.field(
        default_factory=dict[tuple[str, str, str, str], Seen], repr=False
    )
    """What was seen in other scopes."""
    memo: Memo = dataclasses.field(default_factory=Memo, repr=False)
    """Has what was seen before."""

    @classmethod
    def of(cls, snapshot: Snapshot, memo: Memo | None = None) -> MeshIndex:
        memo = memo or Memo()
        domain = snapshot.options.domain
        routings = tuple(
            Routing.of(service, domain, snapshot.services, memo)
            for service in snapshot.virtual_services
        )
        return cls(
            snapshot.options,
            snapshot.services,
            routings,
            RuleIndex.of(snapshot),
            {
                # A headless service's endpoints are what its listener matches.
                record.place: record
                if record.headless
                else memo.call(("shape", *record.place), shape, record)
                for record in snapshot.services.values()
            },
            (
                tuple(snapshot.services),
                snapshot.virtual_services,
                snapshot.destination_rules,
                snapshot.options,
            ),
            frozenset(
                (
                    *(host for routing in routings for host in routing.copies),
                    *(one.host for one in snapshot.options.providers),
                )
            ),
            memo=memo,
        )

    def routed(
        self, virtual_services: tuple[VirtualService, ...], difference: SequenceDifference
    ) -> MeshIndex:
        """Return the index of a snapshot with others for a part of its VirtualServices."""
        before = {routing.service.key: routing for routing in difference.of_old(self.routings)}
        domain = self.options.domain
        made = (
            known
            if (known := before.get(service.key)) is not None and known.service is service
            else Routing.of(service, domain, self.services, self.memo)
            for service in difference.of_new(virtual_services)
        )
        names, _, rules, options = self.content
        return dataclasses.replace(
            self,
            routings=difference.replaced(self.routings, made),
            content=(names, virtual_services, rules, options),
        )

    def with_rules(self, snapshot: Snapshot) -> MeshIndex:
        """Return the index of a snapshot with other DestinationRules."""
        names, routes, rules, options = self.content
        if snapshot.destination_rules == rules:
            return self
        content = (names, routes, snapshot.destination_rules, options)
        return dataclasses.replace(self, rules=RuleIndex.of(snapshot), content=content)

    def with_services(
        self, names: Iterable[str], accepted: Mapping[str, ServiceRecord]
    ) -> MeshIndex:
        """Return the index of a snapshot with others for some of its services, each the only one
        of its host. ``names``: all that there are now, in order; ``accepted``: the changed ones."""
        services = {
            name: accepted[name] if name in accepted else self.services[name] for name in names
        }
        shapes = {
            record.place: self.shapes[record.place]
            if name not in accepted
            else record
            if record.headless
            else shape(record)
            for name, record in services.items()
        }
        changed = accepted.keys() | self.services.keys() - services.keys()
        seen = {key: one for key, one in self.known_hosts.items() if key[0] not in changed}
        content = (tuple(services), *self.content[1:])
        return dataclasses.replace(
            self, services=services, shapes=shapes, content=content, known_hosts=seen
        )

    @functools.cached_property
    def mentions(self) -> Mapping[str, tuple[Routing, ...]]:
        """Return the VirtualServices by the full hosts that they are for and that their HTTP routes
        lead to."""
        return mentioning(self.routings)

    @functools.cached_property
    def settings(self) -> Settings:
        return self.memo.call("settings", Settings, self.options)

    @property
    def virtual_services(self) -> tuple[VirtualService, ...]:
        """Return those in force, with delegates' routes."""
        return self.content[1]

    def visible(self, client: str) -> tuple[tuple[Routing, ...], RoutingTable]:
        """Return the VirtualServices that a namespace sees, and those of requests of workloads."""
        if self._is_all_exported:
            return self.routings, self._table
        found = tuple(
            routing
            for routing in self.routings
            if exported(routing.service.spec.export_to, routing.namespace, client)
        )
        return found, RoutingTable.of_mesh(found)

    @functools.cached_property
    def _is_all_exported(self) -> bool:
        return all(exported_to_all(one.service.spec.export_to) for one in self.routings)

    @functools.cached_property
    def _table(self) -> RoutingTable:
        return RoutingTable.of_mesh(self.routings)

    @property
    def is_seen_alike(self) -> bool:
        """Return whether clients of all namespaces see the same services and VirtualServices."""
        return self.seen_by_all is not None and self._is_all_exported

    def seen(self, record: ServiceRecord, rules: RuleSet, copies: RuleSet) -> Seen:
        """Return a service as clients see it for which these rules hold."""
        key = (*record.place, rules.variant, copies.variant)
        found = self.known_hosts.get(key)
        if found is None or (found.rules, found.of_copies) != (rules, copies):
            shown = self.memo.call(("outline", *record.place), outline, record)
            found = self.memo.call(("seen", *key), Seen, record.host, shown, True, rules, copies)
            self.known_hosts[key] = found
        return found

    @functools.cached_property
    def seen_by_all(self) -> SeenServices | None:
        """Return the services that all clients see; None: it is not for all the same."""
        records = self.services.values()
        by_host = {record.host: record for record in records}
        if len(by_host) < len(self.services):
            return None
        if not all(exported_to_all(record.export_to) for record in records):
            return None
        return seen_services(by_host, self.shapes)
