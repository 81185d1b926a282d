"""All objects as they will be after a change, with lookups."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshd.api import protocol
from meshd.api.base import Key, Object
from meshd.api.checks import covers
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import MESH, Gateway
from meshd.api.kubernetes.types import Service
from meshd.api.protocol import Protocol
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.virtual_service.types import VirtualService
from meshd.model.workload import Workload


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """A host that a Service or a ServiceEntry declares."""

    host: str
    key: Key
    protocols: Mapping[int, Protocol]
    """By the number of the port."""


class World:
    """The objects. ``workloads``: all that run in the mesh; None: that is not known."""

    def __init__(
        self,
        objects: Mapping[Key, Object],
        domain: str,
        workloads: Sequence[Workload] | None = None,
    ) -> None:
        self._domain = domain
        self.objects = objects
        self.workloads = workloads
        self.subsets: dict[str, dict[str, set[Key]]] = defaultdict(lambda: defaultdict(set))
        """By host and name: the rules that have it."""
        self.declared: dict[str, list[Declared]] = defaultdict(list)
        self.owners: dict[str, list[VirtualService]] = defaultdict(list)
        self.addresses: dict[str, list[Key]] = defaultdict(list)
        """Services by the address that they ask for."""
        self.served: dict[tuple[int, str], list[Gateway]] = defaultdict(list)
        """Gateways by port and host."""
        for found in objects.values():
            match found:
                case DestinationRule():
                    host = self.full(found.spec.host, found)
                    for subset in found.spec.subsets:
                        self.subsets[host][subset.name].add(found.key)
                case Service() | ServiceEntry():
                    for declared in self.declarations(found):
                        self.declared[declared.host].append(declared)
                    own = found.spec.cluster_ip if isinstance(found, Service) else None
                    if own and own != "None":
                        self.addresses[own].append(found.key)
                case Gateway():
                    for server in found.spec.servers:
                        for host in {bare_host(text) for text in server.hosts}:
                            self.served[server.port.number, host].append(found)
                case VirtualService() if MESH in (found.spec.gateways or (MESH,)):
                    for host in found.spec.hosts:
                        self.owners[self.full(host, found)].append(found)
                case _:
                    pass

    def declarations(self, found: Service | ServiceEntry) -> Iterator[Declared]:
        if isinstance(found, Service):
            ports = {
                port.port: protocol.of_service_port(
                    port.protocol, port.name, port.app_protocol, port.port
                )
                for port in found.spec.ports
            }
            yield Declared(self.full(found.metadata.name, found), found.key, ports)
            return
        ports = {
            port.number: protocol.of_entry_port(port.protocol, port.name, port.number)
            for port in found.spec.ports
        }
        for host in found.spec.hosts:
            yield Declared(host.lower(), found.key, ports)

    def full(self, host: str, owner: Object) -> str:
        """Return the full host; a name without dots is in the owner's namespace."""
        if "." in host or host == "*":
            return host.lower()
        return f"{host}.{owner.metadata.namespace}.svc.{self._domain}".lower()

    def subsets_of(self, host: str) -> dict[str, set[Key]]:
        """Return the subsets of a host, with the rules that declare them."""
        found: dict[str, set[Key]] = defaultdict(set)
        for rule, subsets in self.subsets.items():
            if covers(rule, host):
                for name, keys in subsets.items():
                    found[name] |= keys
        return found

    def is_host(self, host: str) -> bool:
        return host in self.declared or any(covers(wild, host) for wild in self.declared)

    def covered(self, pattern: str) -> list[Declared]:
        """Return the hosts that a pattern covers."""
        return [
            one for host, found in self.declared.items() if covers(pattern, host) for one in found
        ]


def bare_host(text: str) -> str:
    """Return the host of a Gateway's server, without the namespace before it."""
    return text.rpartition("/")[2].lower()
