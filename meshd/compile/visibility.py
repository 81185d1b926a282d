"""The view of a scope's clients: services, routes, rules."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec

from meshd.api.base import exported
from meshd.api.gateway.types import MESH
from meshd.api.protocol import Protocol
from meshd.api.traffic import Destination, VirtualService
from meshd.compile.hosts import covers, resolve, specificity
from meshd.compile.names import HIDDEN, OutboundCluster
from meshd.compile.scope import Scope
from meshd.compile.upstream.destination_rules import AT_GATEWAY, RuleIndex, RuleSet
from meshd.compile.upstream.traffic_policy import is_different_at_gateways
from meshd.model.service import Resolution, ServiceRecord, seen_from
from meshd.model.snapshot import MeshOptions, Snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Routing:
    """A VirtualService with its hosts written out."""

    hosts: tuple[str, ...]
    service: VirtualService

    @property
    def namespace(self) -> str:
        return self.service.metadata.namespace


@dataclasses.dataclass(frozen=True, slots=True)
class MeshIndex:
    """A snapshot indexed for views from many scopes. Built once for each snapshot."""

    options: MeshOptions
    services: Mapping[str, ServiceRecord]
    routings: tuple[Routing, ...]
    rules: RuleIndex

    @classmethod
    def of(cls, snapshot: Snapshot) -> MeshIndex:
        domain = snapshot.options.domain
        routings = tuple(
            Routing(
                tuple(
                    resolve(host, service.metadata.namespace, domain, snapshot.services)
                    for host in service.spec.hosts
                ),
                service,
            )
            for service in snapshot.virtual_services
        )
        return cls(snapshot.options, snapshot.services, routings, RuleIndex.of(snapshot))

    def view(self, scope: Scope) -> View:
        """Return the view of a scope."""
        client = scope.namespace
        services = seen_from(client, self.services.values())
        by_port: dict[int, list[ServiceRecord]] = defaultdict(list)
        for record in services.values():
            for number in record.protocols:
                by_port[number].append(record)
        visible = tuple(
            routing
            for routing in self.routings
            if exported(routing.service.spec.export_to, routing.namespace, client)
        )
        mesh = tuple(routing for routing in visible if _bound_to_mesh(routing.service))
        return View(
            scope=scope,
            index=self,
            services=services,
            by_port={number: tuple(records) for number, records in by_port.items()},
            routings=visible,
            mesh_routings=RoutingTable.of(mesh),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class RoutingTable:
    """VirtualServices by host, oldest first."""

    exact: Mapping[str, tuple[Routing, ...]]
    wildcards: tuple[tuple[str, Routing], ...]
    """Most specific first."""

    @classmethod
    def of(cls, routings: tuple[Routing, ...]) -> RoutingTable:
        exact: dict[str, list[Routing]] = defaultdict(list)
        wildcards: list[tuple[str, Routing]] = []
        for routing in routings:
            for host in dict.fromkeys(routing.hosts):
                if host.startswith("*"):
                    wildcards.append((host, routing))
                else:
                    exact[host].append(routing)
        wildcards.sort(key=lambda entry: specificity(entry[0]))
        return cls({host: tuple(found) for host, found in exact.items()}, tuple(wildcards))

    def for_host(self, host: str) -> Iterator[Routing]:
        """Yield the VirtualServices that may apply to a host, in order of precedence."""
        yield from self.exact.get(host, ())
        for pattern, routing in self.wildcards:
            if covers(pattern, host):
                yield routing

    def hosts(self) -> Iterator[str]:
        yield from self.exact
        yield from dict.fromkeys(pattern for pattern, _ in self.wildcards)


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """The mesh as the clients of one scope see it."""

    scope: Scope
    index: MeshIndex
    services: Mapping[str, ServiceRecord]
    by_port: Mapping[int, tuple[ServiceRecord, ...]]
    """Visible services by the numbers of their ports."""
    routings: tuple[Routing, ...]
    """Visible VirtualServices, those for gateways too."""
    mesh_routings: RoutingTable
    """Those for requests that workloads send."""
    of_gateway: bool = False
    """What is looked for is where a gateway sends what comes in."""
    of_copy: bool = False
    """What is looked for is where copies of requests go."""
    known_rules: dict[tuple[str, bool, bool], RuleSet] = dataclasses.field(
        default_factory=dict[tuple[str, bool, bool], RuleSet], repr=False, compare=False
    )
    """What ``rules`` has found, for every route asks for the same few hosts."""

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

    def _find_rules(self, host: str) -> RuleSet:
        record = self.services.get(host)
        if record is None:
            return RuleSet()
        rules = self.index.rules.rules(record, self.scope, at_gateway=self.of_gateway)
        if not (self.of_gateway or self.of_copy) or not is_different_at_gateways(record, rules):
            return rules
        variant = rules.variant + AT_GATEWAY
        return msgspec.structs.replace(rules, variant=variant, at_gateway=True)

    def as_gateway(self) -> View:
        return dataclasses.replace(self, of_gateway=True)

    def of_copies(self) -> View:
        """Return the view of copies: like a gateway's, without requested addresses or versions of
        HTTP."""
        return dataclasses.replace(self, of_copy=True)

    def mirrored(self) -> frozenset[str]:
        """Return the full names of the hosts to which copies of requests go."""
        domain, services = self.options.domain, self.index.services
        return frozenset(
            resolve(destination.host, routing.namespace, domain, services)
            for routing in self.routings
            for destination in routing.service.mirrors()
        )

    def cluster(self, host: str, port: int, subset: str = "") -> OutboundCluster:
        """Return the cluster of a service's port by the service's full name.

        For a missing service, it is the name of a cluster that does not exist either: requests to
        it are answered 503, and others go on.
        """
        record = self.services.get(host)
        if record is None and host in self.index.services:
            return OutboundCluster(port, host, subset, HIDDEN)
        apart = record.apart if record else ""
        return OutboundCluster(port, host, subset, self.rules(host).variant, apart)

    def is_looked_up(self, cluster: OutboundCluster) -> bool:
        """Return whether the proxy looks up the name of each request or connection to a cluster."""
        record = self.services.get(cluster.host)
        return record is not None and record.resolution is Resolution.DYNAMIC_DNS

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


def _bound_to_mesh(service: VirtualService) -> bool:
    return not service.spec.gateways or MESH in service.spec.gateways
