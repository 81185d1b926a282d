"""What is not HTTP: which destination address, port and server name goes to which clusters.

From services' ports and the ``tcp`` and ``tls`` parts of VirtualServices; the first that matches
counts, as with HTTP routes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from meshd.compile.dynamic_dns import by_server_name
from meshd.compile.opaque_rules import Target, tcp_rules, tls_rules, to_cluster
from meshd.compile.route_match import Entrance
from meshd.compile.tcp import tcp_proxy
from meshd.compile.visibility import View
from meshd.model.service import Port, Protocol, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions


@dataclasses.dataclass(frozen=True, slots=True)
class OpaqueRoute:
    """One filter chain's worth."""

    name: str
    port: int
    prefixes: tuple[str, ...]
    """Addresses or CIDRs of the destination; empty: any."""
    server_names: tuple[str, ...]
    """Empty: any, or none at all."""
    target: Target

    @property
    def clusters(self) -> tuple[tuple[str, int], ...]:
        return self.target.clusters

    def filters(self, options: MeshOptions | None) -> list[Any]:
        return target_filters(self.target, options)


def target_filters(target: Target, options: MeshOptions | None) -> list[Any]:
    """Network filters; no options: without an access log."""
    proxy = tcp_proxy(target.clusters[0][0], target.clusters, options, policy=target.policy)
    return [by_server_name(target.lookup_port), proxy] if target.lookup_port else [proxy]


def without_repeated(routes: Iterator[OpaqueRoute]) -> Iterator[OpaqueRoute]:
    """The first route that wants an address, port and server name has them: no two match the
    same."""
    taken: set[tuple[int, str, str]] = set()
    for route in routes:
        wanted = [
            (prefix, name)
            for prefix in route.prefixes or ("",)
            for name in route.server_names or ("",)
        ]
        free = [pair for pair in wanted if (route.port, *pair) not in taken]
        taken.update((route.port, *pair) for pair in free)
        if len(free) == len(wanted):
            yield route
            continue
        for prefix, name in free:
            yield dataclasses.replace(
                route,
                prefixes=(prefix,) if prefix else (),
                server_names=(name,) if name else (),
            )


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
        target=to_cluster(cluster, view),
    )


def _declared(
    view: View, host: str, service: ServiceRecord, port: Port, prefixes: tuple[str, ...]
) -> Iterator[OpaqueRoute]:
    """What VirtualServices say about the port."""
    entrance = Entrance(view.scope, port.number)
    for routing in view.mesh_routings.for_host(host):
        owner = f"{routing.namespace}/{routing.service.metadata.name}"
        rules = (*tls_rules(routing, view, entrance), *tcp_rules(routing, view, entrance))
        for index, rule in enumerate(rules):
            yield OpaqueRoute(
                name=f"{owner}|{port.number}|{index}",
                port=port.number,
                prefixes=rule.subnets or prefixes,
                server_names=rule.server_names,
                target=rule.target,
            )
