"""Reads the ``tls`` and ``tcp`` parts of a VirtualService at an entrance, for mesh and gateways
alike."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

from meshd.api.traffic import L4MatchAttributes, RouteDestination
from meshd.compile.http.route_match import Entrance, applies
from meshd.compile.names import OutboundCluster
from meshd.compile.upstream.traffic_policy import Policy, effective_policy
from meshd.compile.visibility import Routing, View

Clusters = tuple[tuple[str, int], ...]
"""With their weights."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The destination of connections."""

    clusters: Clusters
    policy: Policy
    """Of the first of them."""
    lookup_port: int = 0
    """The server name is looked up for each connection, and connected to on this port; 0: not."""

    @property
    def name(self) -> str:
        """Return a name that is the same for targets of the same clusters, in whichever rule they
        are."""
        first = self.clusters[0][0]
        if len(self.clusters) == 1:
            return first
        text = ",".join(f"{cluster}={weight}" for cluster, weight in self.clusters)
        return f"{first}+{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One match of a route that can hold at the entrance."""

    server_names: tuple[str, ...]
    """Empty: any, or none at all."""
    subnets: tuple[str, ...]
    """Of the destination's address; empty: any."""
    target: Target


def tls_rules(routing: Routing, view: View, entrance: Entrance) -> Iterator[Rule]:
    """Yield rules by server name, for TLS that does not end here."""
    for route in routing.service.spec.tls:
        for match in route.match if route.route else ():
            if applies(match, entrance, routing.namespace):
                names = tuple(name.lower() for name in match.sni_hosts)
                target = _of_route(route.route, routing, view, entrance)
                yield Rule(() if "*" in names else names, match.destination_subnets, target)


def tcp_rules(routing: Routing, view: View, entrance: Entrance) -> Iterator[Rule]:
    for route in routing.service.spec.tcp:
        for match in (route.match or (L4MatchAttributes(),)) if route.route else ():
            if applies(match, entrance, routing.namespace):
                target = _of_route(route.route, routing, view, entrance)
                yield Rule((), match.destination_subnets, target)


def to_cluster(cluster: OutboundCluster, view: View) -> Target:
    return _target(((cluster, 1),), view)


def _of_route(
    route: tuple[RouteDestination, ...], routing: Routing, view: View, entrance: Entrance
) -> Target:
    found = (
        (view.destination(part.destination, routing.namespace, entrance.port), part.weight or 0)
        for part in route
    )
    return _target(tuple(found), view)


def _target(found: tuple[tuple[OutboundCluster, int], ...], view: View) -> Target:
    """Return a target: one destination gets everything; of several, those with a weight."""
    first = found[0][0]
    clusters = ((str(first), 1),) if len(found) == 1 else tuple((str(c), w) for c, w in found)
    looked_up = (cluster.port for cluster, _ in found if view.is_looked_up(cluster))
    return Target(clusters, policy_of(view, first), next(looked_up, 0))


def policy_of(view: View, cluster: OutboundCluster) -> Policy:
    return effective_policy(view.rules(cluster.host), cluster.port, cluster.subset)
