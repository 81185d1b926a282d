"""Reads the ``tls`` and ``tcp`` parts of a VirtualService at an entrance, for mesh and gateways
alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from meshd.api.networking import L4MatchAttributes, RouteDestination
from meshd.compile.http.route_match import Entrance, applies
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.chains import AccessLog, Tcp, Tunnel
from meshd.compile.plan.origin import Origin
from meshd.compile.traffic.unruled import is_ruled, rules_if_none, without_rules
from meshd.compile.upstream.traffic_policy import Policy, effective_policy
from meshd.compile.visibility.routings import Routing
from meshd.compile.visibility.view import View
from meshd.matching.connections import server_names

_ATTEMPTS: Final = 3
"""As many as an HTTP request has: where the first one ended may be a member of the pool that was
killed just then."""
_ALWAYS: Final = L4MatchAttributes()
Clusters = tuple[tuple[str, int], ...]
"""With their weights."""


class Target(msgspec.Struct, frozen=True):
    """The destination of connections."""

    clusters: Clusters
    policy: Policy
    """Of the first of them."""
    lookup_port: int = 0
    """The server name is looked up for each connection, and connected to on this port; 0: not."""
    unruled: Target | None = None
    """What it would be without any DestinationRule; None: the same."""

    def tcp(self, access_log: AccessLog) -> Tcp:
        """Return the target of a chain. What holds for a connection cannot differ among its
        clusters: the first's policy does."""
        hashing = self.policy.consistent_hash
        tunnel = self.policy.tunnel
        return Tcp(
            statistics=self.clusters[0][0],
            upstreams=self.clusters,
            access_log=access_log,
            attempts=_ATTEMPTS,
            idle_timeout=self.policy.tcp.idle_timeout,
            by_client_address=bool(hashing and hashing.use_source_ip),
            tunnel=Tunnel(tunnel.target_host, tunnel.target_port, tunnel.protocol == "POST")
            if tunnel
            else None,
            lookup_port=self.lookup_port,
        )

    @property
    def name(self) -> str:
        """Return a name that is the same for targets of the same clusters and settings, in
        whichever rule they are, and of no others: otherwise somebody could receive others'
        connections."""
        first, settings = self.clusters[0][0], ",".join(self._settings())
        if len(self.clusters) == 1 and not settings:
            return first
        text = ",".join(f"{cluster}={weight}" for cluster, weight in self.clusters)
        text += f";{settings}" if settings else ""
        return f"{first}+{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _settings(self) -> Iterator[str]:
        """Yield what rules say of each connection, rather than of clusters."""
        if (idle := self.policy.tcp.idle_timeout) is not None:
            yield f"idle={idle}"
        if (hashing := self.policy.consistent_hash) and hashing.use_source_ip:
            yield "hash"
        if tunnel := self.policy.tunnel:
            yield f"tunnel={tunnel.protocol}:{tunnel.target_host}:{tunnel.target_port}"


class Rule(msgspec.Struct, frozen=True):
    """One match of a route that can hold at the entrance."""

    server_names: tuple[str, ...]
    """Empty: any, or none at all."""
    subnets: tuple[str, ...]
    """Of the destination's address; empty: any."""
    target: Target
    origin: Origin


def tls_rules(routing: Routing, view: View, entrance: Entrance) -> Iterator[Rule]:
    """Yield rules by server name, for TLS that does not end here."""
    for index, route in enumerate(routing.service.spec.tls):
        for which, match in enumerate(route.match if route.route else ()):
            if applies(match, entrance, routing.namespace):
                target = _of_route(route.route, routing, view, entrance)
                origin = Origin(routing.service.key, f"spec.tls[{index}].match[{which}]")
                names = server_names(match)
                yield Rule(names, match.destination_subnets, target, origin)


def tcp_rules(routing: Routing, view: View, entrance: Entrance) -> Iterator[Rule]:
    for index, route in enumerate(routing.service.spec.tcp):
        for which, match in enumerate((route.match or (_ALWAYS,)) if route.route else ()):
            if applies(match, entrance, routing.namespace):
                target = _of_route(route.route, routing, view, entrance)
                condition = f".match[{which}]" if route.match else ""
                origin = Origin(routing.service.key, f"spec.tcp[{index}]{condition}")
                yield Rule((), match.destination_subnets, target, origin)


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
    """Return a target: one destination gets everything; of several, those with a weight, or each
    the same if none has one."""
    first = found[0][0]
    if len(found) == 1 or not any(weight for _, weight in found):
        found = tuple((cluster, 1) for cluster, _ in found)
    looked_up = next((one.port for one, _ in found if view.is_looked_up(one)), 0)
    made = Target(_clusters(found), policy_of(view, first), looked_up)
    if not any(is_ruled(view, cluster.host) for cluster, _ in found):
        return made
    unruled = tuple((without_rules(view, cluster), weight) for cluster, weight in found)
    policy = effective_policy(rules_if_none(view, first.host), first.port)
    before = Target(_clusters(unruled), policy, looked_up)
    return made if before.name == made.name else msgspec.structs.replace(made, unruled=before)


def _clusters(found: tuple[tuple[OutboundCluster, int], ...]) -> Clusters:
    return tuple((str(cluster), weight) for cluster, weight in found)


def policy_of(view: View, cluster: OutboundCluster) -> Policy:
    return effective_policy(view.rules(cluster.host), cluster.port, cluster.subset)
