"""What is not HTTP: which destination address, port and server name goes to which clusters.

From services' ports and the ``tcp`` and ``tls`` parts of VirtualServices; the first that matches
counts, as with HTTP routes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from meshd.compile.dynamic_dns import by_server_name
from meshd.compile.names import OutboundCluster
from meshd.compile.route_match import MESH
from meshd.compile.tcp import tcp_proxy
from meshd.compile.traffic_policy import Policy, effective_policy
from meshd.compile.visibility import Routing, View
from meshd.model.service import Port, Protocol, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions
from meshd.model.traffic import L4MatchAttributes, RouteDestination, TLSMatchAttributes


@dataclasses.dataclass(frozen=True, slots=True)
class OpaqueRoute:
    """One filter chain's worth."""

    name: str
    port: int
    prefixes: tuple[str, ...]
    """Addresses or CIDRs of the destination; empty: any."""
    server_names: tuple[str, ...]
    """Empty: any, or none at all."""
    clusters: tuple[tuple[str, int], ...]
    """With their weights."""
    policy: Policy
    """Of the first of them."""
    dynamic: bool = False
    """The server name is looked up for each connection."""

    def filters(self, options: MeshOptions | None) -> list[Any]:
        """Network filters; no options: without an access log."""
        proxy = tcp_proxy(self.clusters[0][0], self.clusters, options, policy=self.policy)
        return [by_server_name(self.port), proxy] if self.dynamic else [proxy]


def destinations(service: ServiceRecord) -> tuple[str, ...]:
    """Where clients connect to when they mean this service."""
    if service.headless:
        found = (endpoint.address for endpoint in service.endpoints)
        return tuple(sorted(set(found)))
    return service.addresses


def opaque_routes(view: View) -> Iterator[OpaqueRoute]:
    """Most specific first where two could match the same connection."""
    for host, service in sorted(view.services.items()):
        for port in service.ports:
            if port.protocol.is_http or port.protocol is Protocol.UDP:
                continue
            prefixes = destinations(service)
            if not prefixes and not _reached_without_address(service, port):
                continue
            yield from _declared(view, host, service, port, prefixes)
            yield _default(view, host, service, port, prefixes)


def _reached_without_address(service: ServiceRecord, port: Port) -> bool:
    """By its server name, or by a port that only it has."""
    by_name = port.protocol in {Protocol.TLS, Protocol.HTTPS}
    return by_name or (service.resolution is Resolution.NONE and not service.headless)


def _default(
    view: View, host: str, service: ServiceRecord, port: Port, prefixes: tuple[str, ...]
) -> OpaqueRoute:
    cluster = view.cluster(host, port.number)
    by_name = port.protocol in {Protocol.TLS, Protocol.HTTPS} and not prefixes
    return OpaqueRoute(
        name=str(cluster),
        port=port.number,
        prefixes=prefixes,
        server_names=(host,) if by_name else (),
        clusters=((str(cluster), 1),),
        policy=policy_of(view, cluster),
        dynamic=service.resolution is Resolution.DYNAMIC_DNS,
    )


def _declared(
    view: View, host: str, service: ServiceRecord, port: Port, prefixes: tuple[str, ...]
) -> Iterator[OpaqueRoute]:
    """What VirtualServices say about the port."""
    for routing in view.mesh_routings.for_host(host):
        spec = routing.service.spec
        found = [
            *((match, match.sni_hosts, route.route) for route in spec.tls for match in route.match),
            *(
                (match, (), route.route)
                for route in spec.tcp
                for match in route.match or (L4MatchAttributes(),)
            ),
        ]
        for index, (match, names, route) in enumerate(found):
            if _applies(match, port, view) and route:
                yield OpaqueRoute(
                    name=f"{routing.namespace}/{routing.service.metadata.name}|{port.number}|{index}",
                    port=port.number,
                    prefixes=match.destination_subnets or prefixes,
                    server_names=names,
                    clusters=weighted(view, routing, route, port.number),
                    policy=first_policy(view, routing, route, port.number),
                )


def policy_of(view: View, cluster: OutboundCluster) -> Policy:
    return effective_policy(view.rules(cluster.host), cluster.port, cluster.subset)


def first_policy(
    view: View, routing: Routing, route: tuple[RouteDestination, ...], port: int
) -> Policy:
    """Of a route's first destination."""
    first = route[0].destination
    return policy_of(view, view.destination(first, routing.namespace, port))


def _applies(match: L4MatchAttributes | TLSMatchAttributes, port: Port, view: View) -> bool:
    here = not match.gateways or MESH in match.gateways
    return here and match.port in {None, port.number} and view.scope.is_source_of(match)


def weighted(
    view: View, routing: Routing, route: tuple[RouteDestination, ...], port: int
) -> tuple[tuple[str, int], ...]:
    """The clusters of a route. One alone gets everything; of several, those with a weight."""
    clusters = [
        (str(view.destination(part.destination, routing.namespace, port)), part.weight or 0)
        for part in route
    ]
    return ((clusters[0][0], 1),) if len(clusters) == 1 else tuple(clusters)
