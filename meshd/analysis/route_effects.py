"""Finds routes that can have no effect, because no request or connection reaches them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshd.analysis.effects import Said
from meshd.analysis.world import Declared, World
from meshd.api.base import Key, Object
from meshd.api.decode import Path
from meshd.api.gateway.types import (
    MESH,
    Gateway,
    Server,
    gateway_name,
)
from meshd.api.hosts import HostIndex
from meshd.api.protocol import DEFAULT_HTTP_PORT, Protocol, Routes
from meshd.api.virtual_service.delegation import delegate_key
from meshd.api.virtual_service.types import (
    HTTPRoute,
    TCPRoute,
    TLSRoute,
    VirtualService,
)
from meshd.matching.entrances import bound_gateways, full_names


def of_virtual_service(found: VirtualService, world: World) -> Said:
    if found.is_delegate:
        if not any(_delegates_to(found, other) for other in world.objects.values()):
            yield ("spec",), "has no hosts, and no VirtualService delegates to it"
        return
    doors = [*_mesh(found, world), *_gateways(found, world)]
    for path, kind, gateways, port in _matches(found):
        asked = [door for door in doors if door.name in gateways]
        reasons = [door.why_not(kind, port) for door in asked]
        if asked and all(reasons):
            yield path, f"has no effect: {'; '.join(dict.fromkeys(reasons))}"


def _delegates_to(delegate: VirtualService, other: Object) -> bool:
    if not isinstance(other, VirtualService):
        return False
    named = (route.delegate for route in other.spec.http if route.delegate)
    return any(delegate_key(one, other.metadata.namespace) == delegate.key for one in named)


def _matches(found: VirtualService) -> Iterator[tuple[Path, Routes, frozenset[str], int | None]]:
    """Yield each match, or each route without one, with its gateways and its port."""
    spec, namespace = found.spec, found.metadata.namespace

    bound = bound_gateways(found)
    listed: tuple[tuple[Routes, Sequence[HTTPRoute | TLSRoute | TCPRoute]], ...] = (
        ("http", spec.http),
        ("tls", spec.tls),
        ("tcp", spec.tcp),
    )
    for kind, routes in listed:
        for index, route in enumerate(routes):
            if not route.match:
                yield ("spec", kind, index), kind, bound, None
            for number, match in enumerate(route.match):
                path: Path = ("spec", kind, index, "match", number)
                yield path, kind, full_names(match.gateways, namespace) or bound, match.port


class _MeshDoor:
    """Connections that workloads begin."""

    name = MESH

    def __init__(self, hosts: str, services: list[Declared]) -> None:
        self._hosts = hosts
        self._protocols = [
            (number, protocol)
            for service in services
            for number, protocol in service.protocols.items()
            if protocol is not Protocol.UDP
        ]

    def why_not(self, kind: Routes, port: int | None) -> str:
        """Return why a match has no effect; empty if it may have one."""
        if not self._protocols and kind != "http":
            return f"no Service or ServiceEntry has {self._hosts}, so no port is known in the mesh"
        if not self._protocols:
            elsewhere = port not in {None, DEFAULT_HTTP_PORT}
            return f"{self._hosts} is not a service, so only port 80 is routed" if elsewhere else ""
        fitting = {number for number, spoken in self._protocols if spoken.is_for(kind)}
        if not fitting:
            return f"no port of {self._hosts} in the mesh is one for {kind} (see its protocol)"
        if port is not None and port not in fitting:
            known = ", ".join(map(str, sorted(fitting)))
            return f"{port} is not a port of {self._hosts} in the mesh for {kind} (known: {known})"
        return ""


class _GatewayDoor:
    """Connections to the servers of a Gateway that have some of the hosts."""

    def __init__(self, name: str, hosts: str, servers: list[Server]) -> None:
        self.name = name
        self._hosts = hosts
        self._servers = servers

    def why_not(self, kind: Routes, port: int | None) -> str:
        """Return why a match has no effect; empty if it may have one."""
        if not self._servers:
            return f"Gateway {self.name} does not list {self._hosts} for this namespace"
        fitting = {server.port.number for server in self._servers if server.is_for(kind)}
        if not fitting:
            return f"no server of Gateway {self.name} for {self._hosts} is one for {kind}"
        if port is not None and port not in fitting:
            known = ", ".join(map(str, sorted(fitting)))
            return f"{port} is not a port of Gateway {self.name} for {kind} (known: {known})"
        return ""


def _mesh(found: VirtualService, world: World) -> Iterator[_MeshDoor]:
    if MESH in (found.spec.gateways or (MESH,)):
        hosts = [world.full(host, found) for host in found.spec.hosts]
        services = [one for host in hosts for one in world.covered(host)]
        yield _MeshDoor(", ".join(found.spec.hosts), services)


def _gateways(found: VirtualService, world: World) -> Iterator[_GatewayDoor]:
    """Yield the gateways that exist; missing ones are reported elsewhere."""
    hosts = HostIndex(world.full(host, found) for host in found.spec.hosts)
    for name in found.spec.gateways:
        full = gateway_name(name, found.metadata.namespace)
        namespace, _, short = full.partition("/")
        gateway = world.objects.get(Key("Gateway", namespace, short))
        if isinstance(gateway, Gateway):
            servers = [
                server
                for server in gateway.spec.servers
                for owner, listed in server.owned_hosts(namespace)
                if owner in {"*", found.metadata.namespace} and hosts.overlaps(listed)
            ]
            yield _GatewayDoor(full, ", ".join(found.spec.hosts), servers)
        elif full != MESH:
            yield _AnyDoor(full, "", [])


class _AnyDoor(_GatewayDoor):
    """A Gateway that does not exist yet."""

    def why_not(self, kind: Routes, port: int | None) -> str:
        del kind, port
        return ""
