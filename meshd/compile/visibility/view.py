"""The view of a scope's clients: services, routes, rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping

from meshd.api.gateway.types import gateway_name
from meshd.api.hosts import resolve
from meshd.api.networking import Destination
from meshd.api.protocol import Protocol
from meshd.compile.names import HIDDEN, OutboundCluster
from meshd.compile.upstream.destination_rules import NO_RULES, RuleSet
from meshd.compile.upstream.traffic_policy import at_gateway
from meshd.compile.visibility.index import Content, MeshIndex
from meshd.compile.visibility.routings import GatewayRoutings, Routing, RoutingTable
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.seen import Seen, seen_services
from meshd.model.closed_rule import ClosedRule
from meshd.model.service import Resolution, ServiceRecord, seen_from
from meshd.model.snapshot import MeshOptions


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
    content: tuple[Scope, Content, tuple[ServiceRecord, ...]] = dataclasses.field(repr=False)
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

    @classmethod
    def of(cls, index: MeshIndex, scope: Scope) -> View:
        """Return the view of a scope."""
        client = scope.namespace
        found = index.seen_by_all or seen_services(
            seen_from(client, index.services.values()), index.shapes
        )
        visible, of_mesh = index.visible(client)
        return cls(
            scope=scope,
            index=index,
            services=found.by_host,
            by_port=found.by_port,
            routings=visible,
            mesh_routings=of_mesh,
            content=(scope, index.content, found.shapes),
        )

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
        return at_gateway(record, rules)

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
        made = View.of(index, self.scope)
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
