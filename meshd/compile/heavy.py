"""Objects of a snapshot that would make more of proxies' configuration than is taken. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from meshd.api.gateway.types import MESH, gateway_name
from meshd.api.protocol import Protocol
from meshd.api.traffic import DestinationRule
from meshd.api.virtual_service.types import HTTPRoute, VirtualService
from meshd.compile.hosts import covers, resolve
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.weight import gateway_entrances, too_many_routes, too_many_subsets

Heavy = VirtualService | DestinationRule
"""What may make too much."""


class Weighing:
    """Weighs again only what has changed in more than its endpoints."""

    def __init__(self) -> None:
        self._inputs: tuple[object, ...] = ()
        self._found: tuple[tuple[Heavy, str], ...] = ()

    def too_heavy(self, snapshot: Snapshot) -> tuple[tuple[Heavy, str], ...]:
        """Return each object that does, with the reason."""
        mesh = _Mesh(snapshot)
        lists = (snapshot.virtual_services, snapshot.destination_rules, snapshot.gateways)
        inputs = (*lists, mesh.all_ports)
        if inputs != self._inputs:
            self._inputs, self._found = inputs, tuple(_too_heavy(snapshot, mesh))
        return self._found


def _too_heavy(snapshot: Snapshot, mesh: _Mesh) -> Iterator[tuple[Heavy, str]]:
    for rule in snapshot.destination_rules:
        if rule.spec.subsets:
            host = mesh.full(rule.spec.host, rule.metadata.namespace)
            if why := too_many_subsets(rule, mesh.ports(host)):
                yield rule, why
    for found in snapshot.virtual_services:
        if found.spec.hosts and (why := mesh.too_many_routes(found)):
            yield found, why


class _Mesh:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.all_ports: dict[str, int] = defaultdict(int)
        """How many ports each host has."""
        for record in snapshot.services.values():
            self.all_ports[record.host] = max(self.all_ports[record.host], _ports(record))
        self._servers = {
            f"{found.metadata.namespace}/{found.metadata.name}": found.spec.servers
            for found in snapshot.gateways
        }
        self._delegates: Mapping[tuple[str, str], VirtualService] = {
            (found.metadata.namespace, found.metadata.name): found
            for found in snapshot.virtual_services
            if found.is_delegate
        }

    def full(self, host: str, namespace: str) -> str:
        return resolve(host, namespace, self._snapshot.options.domain, self._snapshot.services)

    def ports(self, host: str) -> int:
        """Ports of all services that a host or a wildcard stands for."""
        if not host.startswith("*"):
            return self.all_ports.get(host, 0)
        return sum(ports for known, ports in self.all_ports.items() if covers(host, known))

    def too_many_routes(self, found: VirtualService) -> str:
        namespace = found.metadata.namespace
        names = found.spec.gateways or (MESH,)
        entrances = sum(
            gateway_entrances(
                self._servers.get(gateway_name(name, namespace), ()), found.spec.hosts
            )
            for name in names
            if name != MESH
        )
        if MESH in names:
            full = (self.full(host, namespace) for host in found.spec.hosts)
            entrances += sum(self.ports(host) or 1 for host in full)

        def delegate(route: HTTPRoute) -> VirtualService | None:
            named = route.delegate
            return named and self._delegates.get((named.namespace or namespace, named.name))

        return too_many_routes(found, entrances, delegate)


def _ports(record: ServiceRecord) -> int:
    return sum(port.protocol is not Protocol.UDP for port in record.ports)
