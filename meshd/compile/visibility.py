"""The view of a scope's clients: services, routes, rules."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container, Iterable, Mapping

from meshd.api.base import exported, exported_to_all
from meshd.api.gateway.types import gateway_name
from meshd.api.hosts import resolve
from meshd.api.protocol import Protocol
from meshd.api.traffic import Destination, DestinationRule, VirtualService
from meshd.base.sequence_difference import SequenceDifference
from meshd.compile.memo import Memo
from meshd.compile.names import HIDDEN, OutboundCluster
from meshd.compile.routings import GatewayRoutings, Routing, RoutingTable, mentioning
from meshd.compile.scope import Scope
from meshd.compile.seen import Seen, SeenServices, Settings, seen_services
from meshd.compile.upstream.destination_rules import NO_RULES, RuleIndex, RuleSet
from meshd.compile.upstream.shape import outline, shape
from meshd.compile.upstream.traffic_policy import at_gateway
from meshd.model.closed_rule import ClosedRule
from meshd.model.service import Place, Resolution, ServiceRecord, seen_from
from meshd.model.snapshot import MeshOptions, Snapshot

_Content = tuple[
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
    content: _Content
    """What decides on the index, but for the services that clients see: names of others count."""
    copied: frozenset[str]
    """Hosts to which copies of requests go."""
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
            frozenset(host for routing in routings for host in routing.copies),
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
        return self._services is not None and self._is_all_exported

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
    def _services(self) -> SeenServices | None:
        """Return the services that all clients see; None: it is not for all the same."""
        records = self.services.values()
        by_host = {record.host: record for record in records}
        if len(by_host) < len(self.services):
            return None
        if not all(exported_to_all(record.export_to) for record in records):
            return None
        return seen_services(by_host, self.shapes)

    def view(self, scope: Scope) -> View:
        """Return the view of a scope."""
        client = scope.namespace
        found = self._services or seen_services(
            seen_from(client, self.services.values()), self.shapes
        )
        visible, of_mesh = self.visible(client)
        return View(
            scope=scope,
            index=self,
            services=found.by_host,
            by_port=found.by_port,
            routings=visible,
            mesh_routings=of_mesh,
            content=(scope, self.content, found.shapes),
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class View:
    """The mesh as the clients of one scope see it.

    Views are equal when nothing differs between them but what load assignments depend on.
    """

    scope: Scope
    index: MeshIndex
    services: Mapping[str, ServiceRecord]
    by_port: Mapping[int, tuple[ServiceRecord, ...]]
    """Visible services by the numbers of their ports."""
    routings: tuple[Routing, ...]
    """Visible VirtualServices, those for gateways too."""
    mesh_routings: RoutingTable
    """Those for requests that workloads send."""
    content: tuple[Scope, _Content, tuple[ServiceRecord, ...]] = dataclasses.field(repr=False)
    """All from which the view was made."""
    of_gateway: bool = False
    """What is looked for is where a gateway sends what comes in."""
    of_copy: bool = False
    """What is looked for is where copies of requests go."""
    known_rules: dict[tuple[str, bool, bool], RuleSet] = dataclasses.field(
        default_factory=dict[tuple[str, bool, bool], RuleSet], repr=False, compare=False
    )
    """What ``rules`` has found, for every route asks for the same few hosts."""
    known_gateways: dict[str, GatewayRoutings] = dataclasses.field(
        default_factory=dict[str, GatewayRoutings], repr=False, compare=False
    )
    """What ``at_gateway`` has made, for each server of a Gateway asks for it."""
    known_hosts: dict[str, Seen] = dataclasses.field(
        default_factory=dict[str, Seen], repr=False, compare=False
    )
    """What ``seen`` has found."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, View)
            and (self.of_gateway, self.of_copy) == (other.of_gateway, other.of_copy)
            and self.content == other.content
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def options(self) -> MeshOptions:
        return self.index.options

    def protocols(self, port: int) -> frozenset[Protocol]:
        """Return the protocols of services on a port."""
        return frozenset(
            protocol
            for record in self.by_port.get(port, ())
            for protocol in record.protocols.get(port, ())
        )

    def rules(self, host: str) -> RuleSet:
        """Return the DestinationRules that hold for a host; none if it is no visible service."""
        key = (host, self.of_gateway, self.of_copy)
        found = self.known_rules.get(key)
        if found is None:
            found = self.known_rules[key] = self._find_rules(host)
        return found

    def seen(self, host: str) -> Seen:
        """Return a host as these clients see it."""
        found = self.known_hosts.get(host)
        if found is None:
            found = self.known_hosts[host] = self._look_at(host)
        return found

    def _look_at(self, host: str) -> Seen:
        record, memo = self.services.get(host), self.index.memo
        is_known = record is not None or host in self.index.services
        if record is None:
            return memo.call(("seen", host), Seen, host, None, is_known, NO_RULES, NO_RULES)
        rules = self.rules(host)
        copies = self.of_copies().rules(host) if host in self.index.copied else rules
        return self.index.seen(record, rules, copies)

    def _find_rules(self, host: str) -> RuleSet:
        record = self.services.get(host)
        if record is None:
            return NO_RULES
        rules = self.index.rules.rules(record, self.scope, at_gateway=self.of_gateway)
        return self.as_here(record, rules)

    def as_here(self, record: ServiceRecord, rules: RuleSet) -> RuleSet:
        """Return rules for a service as they are for these clients, who may be a gateway's."""
        if rules.is_closed or not (self.of_gateway or self.of_copy):
            return rules
        return at_gateway(record, rules, short_way=self.options.short_way)

    def closing_rule(self, host: str) -> ClosedRule | None:
        """Return the rule that closes a service to these clients."""
        record = self.services.get(host)
        return record and self.index.rules.closing_rule(record, self.scope)

    def at_gateway(self, gateway: str) -> GatewayRoutings:
        """Return the VirtualServices that name a Gateway, which is ``NAMESPACE/NAME``."""
        if gateway not in self.known_gateways:
            self.known_gateways[gateway] = GatewayRoutings(
                routing.at(gateway)
                for routing in self.routings
                if gateway
                in {gateway_name(one, routing.namespace) for one in routing.service.spec.gateways}
            )
        return self.known_gateways[gateway]

    def routed(self, index: MeshIndex) -> View:
        """Return the view after a change of VirtualServices that has copies go where they did."""
        visible, of_mesh = index.visible(self.scope.namespace)
        scope, _, shapes = self.content
        return dataclasses.replace(
            self,
            index=index,
            routings=visible,
            mesh_routings=of_mesh,
            content=(scope, index.content, shapes),
            known_gateways={},
        )

    def replaced(self, index: MeshIndex, changed: Container[str]) -> View:
        """Return the view after a change of some services, which are those of these hosts."""
        made = index.view(self.scope)
        made.known_rules.update(
            (key, rules) for key, rules in self.known_rules.items() if key[0] not in changed
        )
        made.known_hosts.update(
            (host, seen) for host, seen in self.known_hosts.items() if host not in changed
        )
        return made

    def of_connections(self) -> View:
        """Return the view without VirtualServices for nothing but requests."""
        routings = tuple(one for one in self.routings if one.is_of_connections)
        scope, (names, _, rules, options), shapes = self.content
        services = tuple(one.service for one in routings)
        return dataclasses.replace(
            self,
            routings=routings,
            mesh_routings=RoutingTable.of_mesh(routings),
            content=(scope, (names, services, rules, options), shapes),
        )

    def as_gateway(self) -> View:
        return dataclasses.replace(self, of_gateway=True)

    def of_copies(self) -> View:
        """Return the view of copies: like a gateway's, without requested addresses or versions of
        HTTP."""
        return dataclasses.replace(self, of_copy=True)

    def mirrored(self) -> frozenset[str]:
        """Return the full names of the hosts to which copies of requests go."""
        return frozenset(host for routing in self.routings for host in routing.copies)

    def cluster(self, host: str, port: int, subset: str = "") -> OutboundCluster:
        """Return the cluster of a service's port by the service's full name.

        For a service that is missing, or closed to these clients, it is the name of a cluster that
        does not exist: requests to it are answered 503, connections to it are closed, and others go
        on.
        """
        record = self.services.get(host)
        if record is None and host in self.index.services:
            return OutboundCluster(port, host, subset, HIDDEN)
        apart = record.apart if record else ""
        return OutboundCluster(port, host, subset, self.rules(host).variant, apart)

    def is_looked_up(self, cluster: OutboundCluster) -> bool:
        """Return whether the proxy looks up the name of each request or connection to a cluster."""
        record = self.services.get(cluster.host)
        if record is None or self.rules(cluster.host).is_closed:
            return False
        return record.resolution is Resolution.DYNAMIC_DNS

    def destination(self, destination: Destination, owner: str, port: int) -> OutboundCluster:
        """Return the cluster of a destination that an object of namespace ``owner`` names.

        The default port is the service's only one, else the one on which the client called.
        """
        host = resolve(destination.host, owner, self.options.domain, self.index.services)
        number = destination.port.number if destination.port else None
        if not number:
            record = self.services.get(host)
            number = record.ports[0].number if record and len(record.ports) == 1 else port
        return self.cluster(host, number, destination.subset or "")
