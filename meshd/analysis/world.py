"""All objects as they will be after a change, with lookups."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence

from meshd.api import protocol
from meshd.api.base import Key, Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import MESH, SELECTION, Gateway, GatewaySelection, Server
from meshd.api.hosts import HostIndex, covers, resolve, service_host
from meshd.api.kubernetes.types import Service
from meshd.api.protocol import Protocol
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.virtual_service.types import VirtualService
from meshd.model.weight import Weighed
from meshd.model.workload import Workload


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """A host that a Service or a ServiceEntry declares."""

    host: str
    key: Key
    protocols: Mapping[int, Protocol]
    """By the number of the port."""
    export_to: tuple[str, ...] = ()

    @property
    def routed_ports(self) -> tuple[int, ...]:
        """Return the numbers of its ports but for those of UDP."""
        routed = (port for port, kind in self.protocols.items() if kind is not Protocol.UDP)
        return tuple(sorted(routed))


class World:
    """The objects. ``workloads``: all that run in the mesh; None: that is not known.

    ``services``: hosts that are known although none of the objects declares them.
    """

    def __init__(
        self,
        objects: Mapping[Key, Object],
        domain: str,
        workloads: Sequence[Workload] | None = None,
        services: Container[str] = (),
        gateway_selection: GatewaySelection = SELECTION,
    ) -> None:
        self._domain = domain
        self._services = services
        self.objects = objects
        self.workloads = workloads
        self.gateway_selection: GatewaySelection = gateway_selection
        self.subsets: dict[str, dict[str, set[Key]]] = defaultdict(lambda: defaultdict(set))
        """By host and name: the rules that have it."""
        self.declared: dict[str, list[Declared]] = defaultdict(list)
        self.owners: dict[str, list[VirtualService]] = defaultdict(list)
        self.addresses: dict[str, list[Key]] = defaultdict(list)
        """Services by the address that they ask for."""
        self.served: dict[tuple[int, str], list[Gateway]] = defaultdict(list)
        """Gateways by port and host."""
        for declared in self._all_declarations():
            self.declared[declared.host].append(declared)
        for found in objects.values():
            match found:
                case DestinationRule():
                    host = self.full(found.spec.host, found)
                    for subset in found.spec.subsets:
                        self.subsets[host][subset.name].add(found.key)
                case Service() if found.spec.cluster_ip not in {None, "", "None"}:
                    self.addresses[found.spec.cluster_ip or ""].append(found.key)
                case Gateway():
                    for server in found.spec.servers:
                        for host in {bare_host(text) for text in server.hosts}:
                            self.served[server.port.number, host].append(found)
                case VirtualService() if MESH in (found.spec.gateways or (MESH,)):
                    for host in found.spec.hosts:
                        self.owners[self.full(host, found)].append(found)
                case _:
                    pass

    def _all_declarations(self) -> Iterator[Declared]:
        for found in self.objects.values():
            if isinstance(found, Service | ServiceEntry):
                yield from self.declarations(found)

    def declarations(self, found: Service | ServiceEntry) -> Iterator[Declared]:
        if isinstance(found, Service):
            ports = {
                port.port: protocol.of_service_port(
                    port.protocol, port.name, port.app_protocol, port.port
                )
                for port in found.spec.ports
            }
            host = service_host(found.metadata.name, found.metadata.namespace, self._domain)
            yield Declared(host, found.key, ports, found.export_to)
            return
        ports = {
            port.number: protocol.of_entry_port(port.protocol, port.name, port.number)
            for port in found.spec.ports
        }
        for host in found.spec.hosts:
            yield Declared(host.lower(), found.key, ports, found.spec.export_to)

    def full(self, host: str, owner: Object) -> str:
        """Return the full name of a host that an object names, as it is compiled."""
        known = self._services or self.declared
        return resolve(host, owner.metadata.namespace, self._domain, known)

    def subsets_of(self, host: str) -> dict[str, set[Key]]:
        """Return the subsets of a host, with the rules that declare them."""
        found: dict[str, set[Key]] = defaultdict(set)
        for rule, subsets in self.subsets.items():
            if covers(rule, host):
                for name, keys in subsets.items():
                    found[name] |= keys
        return found

    def is_host(self, host: str) -> bool:
        return self._hosts.covers(host)

    def covered(self, pattern: str) -> list[Declared]:
        """Return the hosts that a pattern covers."""
        return [one for host in self._hosts.covered(pattern) for one in self.declared[host]]

    def services(self, host: str) -> Iterator[Weighed]:
        """Yield all services that a host or a wildcard stands for, as far as they weigh."""
        for one in self._hosts.covered(host) if host.startswith("*") else (host,):
            for declared in self.declared.get(one, ()):
                yield Weighed(declared.key.namespace, declared.host, declared.routed_ports)

    def routing(self, host: str) -> Iterator[VirtualService]:
        """Yield the VirtualServices that may route a host in the mesh, each once."""
        patterns = (one for one in self.owners if one.startswith("*") and covers(one, host))
        found = (routes for one in (host, *patterns) for routes in self.owners.get(one, ()))
        yield from {routes.key: routes for routes in found}.values()

    def servers(self, namespace: str, name: str) -> Sequence[Server]:
        """Return the servers of a Gateway."""
        found = self.objects.get(Key("Gateway", namespace, name))
        return found.spec.servers if isinstance(found, Gateway) else ()

    def delegate(self, namespace: str, name: str) -> VirtualService | None:
        """Return a VirtualService by its name."""
        found = self.objects.get(Key("VirtualService", namespace, name))
        return found if isinstance(found, VirtualService) else None

    @functools.cached_property
    def _hosts(self) -> HostIndex:
        return HostIndex(self.declared)


def bare_host(text: str) -> str:
    """Return the host of a Gateway's server, without the namespace before it."""
    return text.rpartition("/")[2].lower()
