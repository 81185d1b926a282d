"""VirtualServices as they are looked up: by their hosts, for workloads and for gateways."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping

from meshd.api.gateway.types import MESH
from meshd.api.hosts import HostIndex, covers, resolve
from meshd.api.networking import VirtualService
from meshd.compile.hosts import specificity
from meshd.compile.memo import Memo
from meshd.model.bounded import BoundedRoutes
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.service import ServiceRecord


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """A VirtualService with the hosts that it names written out."""

    hosts: tuple[str, ...]
    service: VirtualService
    destinations: tuple[str, ...] = ()
    """Where its HTTP routes lead."""
    copies: tuple[str, ...] = ()
    """Where copies of requests go."""

    @classmethod
    def of(cls, service: VirtualService, domain: str, known: Container[str], memo: Memo) -> Routing:
        """Return the very routing of before while nothing in it has changed."""
        owner = service.metadata.namespace

        def full(hosts: Iterable[str]) -> tuple[str, ...]:
            return tuple(resolve(host, owner, domain, known) for host in hosts)

        named = (place.destination for route in service.spec.http for place in route.route)
        return memo.call(
            ("routing", service.key),
            cls,
            full(service.spec.hosts),
            service,
            full(dict.fromkeys(one.host for one in named)),
            full(dict.fromkeys(one.host for one in service.mirrors())),
        )

    def at_port(self, record: ServiceRecord | None, port: int) -> Routing:
        """Return the routing as it holds at a port of a service."""
        service = self.service
        if record is None or not isinstance(service, BoundedRoutes):
            return self
        place = record.namespace, record.host, port
        return self._closed() if place in service.closed_ports else self

    def at(self, gateway: str) -> Routing:
        """Return the routing as it holds at a Gateway, which is ``NAMESPACE/NAME``."""
        service = self.service
        if not isinstance(service, BoundedRoutes) or gateway not in service.closed_gateways:
            return self
        return self._closed()

    def _closed(self) -> Routing:
        return Routing(self.hosts, ClosedRoutes.of(self.service))

    def names_shortly(self, short: str) -> bool:
        """Return whether it calls a service ``NAME.NAMESPACE``, which is ``short``."""
        places = (place.destination for route in self.service.spec.http for place in route.route)
        named = (one.host for one in (*places, *self.service.mirrors()))
        return any(name.lower() == short for name in (*self.service.spec.hosts, *named))

    @property
    def namespace(self) -> str:
        return self.service.metadata.namespace

    def at_gateway(self) -> Iterator[str]:
        """Yield the hosts as services are named, and as clients from outside may name them."""
        written = (host.lower() for host in self.service.spec.hosts if "." in host)
        yield from dict.fromkeys((*self.hosts, *written))

    @property
    def tells_clients_apart(self) -> bool:
        """Return whether its HTTP routes depend on who asks."""
        return any(
            match.source_labels or match.source_namespace
            for route in self.service.spec.http
            for match in route.match
        )

    @property
    def is_of_connections(self) -> bool:
        """Return whether it routes what is not HTTP."""
        return bool(self.service.spec.tls or self.service.spec.tcp)

    @property
    def is_of_mesh(self) -> bool:
        """Return whether it is for requests that workloads send."""
        return not self.service.spec.gateways or MESH in self.service.spec.gateways


def mentioning(routings: Iterable[Routing]) -> dict[str, tuple[Routing, ...]]:
    """Return VirtualServices by the full hosts that they are for and that their HTTP routes lead
    to."""
    found: dict[str, list[Routing]] = defaultdict(list)
    for routing in routings:
        for host in {*routing.hosts, *routing.destinations, *routing.copies}:
            found[host].append(routing)
    return {host: tuple(those) for host, those in found.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class RoutingTable:
    """VirtualServices by host, oldest first."""

    exact: Mapping[str, tuple[Routing, ...]]
    wildcards: tuple[tuple[str, Routing], ...]
    """Most specific first."""

    @classmethod
    def of_mesh(cls, routings: Iterable[Routing]) -> RoutingTable:
        """Return those for requests that workloads send."""
        return cls.of(tuple(one for one in routings if one.is_of_mesh))

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


class GatewayRoutings:
    """VirtualServices that name one Gateway, oldest first, by their hosts."""

    def __init__(self, routings: Iterable[Routing]) -> None:
        self.routings = tuple(routings)
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Of each host: the VirtualService, and the host's place in it."""
        for index, routing in enumerate(self.routings):
            for place, host in enumerate(routing.at_gateway()):
                self._places[host].append((index, place))
        self._hosts = HostIndex(self._places)

    def overlapping(self, served: str) -> Iterator[tuple[int, str]]:
        """Yield what a server's host has in common with hosts of VirtualServices, each with the
        index of the VirtualService."""
        found = (
            (index, place, served if covers(host, served) else host)
            for host in self._hosts.overlapping(served)
            for index, place in self._places[host]
        )
        return ((index, host) for index, _, host in sorted(found))
