"""The ports that a gateway's workload opens, with the servers of Gateways behind each.

The proxy itself listens there: such a port is not one at which a workload is served by its proxy.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Final

from meshd.api.gateway.types import Gateway, GatewaySelection, Server
from meshd.compile.gateway.secrets import Need
from meshd.compile.gateway.tls import secrets_needed
from meshd.compile.names import gateway_routes
from meshd.compile.plan.origin import Origin
from meshd.model.interception import HOST_PORTS, OWN_PORTS
from meshd.model.service import Endpoint
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


@dataclasses.dataclass(frozen=True, slots=True)
class BoundServer:
    """A server of a Gateway, on a workload that the Gateway selects."""

    gateway: Gateway
    server: Server
    index: int = 0
    """Of the server in its Gateway."""
    again: bool = False
    """A server before it in its Gateway has a port of the same name."""

    @property
    def name(self) -> str:
        """Return a name that is unique among all servers and stays when others come and go."""
        number = f"#{self.index}" if self.again else ""
        return f"{self.gateway_name}{number}/{self.server.port.name}"

    @property
    def origin(self) -> Origin:
        return Origin(self.gateway.key, f"spec.servers[{self.index}]")

    @property
    def gateway_name(self) -> str:
        return f"{self.gateway.metadata.namespace}/{self.gateway.metadata.name}"

    @property
    def hosts(self) -> Iterator[tuple[str, str]]:
        """Yield hosts, each with the namespace whose VirtualServices may use it (``*``: any)."""
        return self.server.owned_hosts(self.gateway.metadata.namespace)

    @property
    def server_names(self) -> tuple[str, ...]:
        """Return host names without the namespaces that may bind to them."""
        return tuple(dict.fromkeys(host for _, host in self.hosts))


@dataclasses.dataclass(frozen=True, slots=True)
class GatewayPorts:
    """The servers of one gateway workload. A workload without ports is not a gateway."""

    owner: str
    """The workload, whose routes are named by it: not by its Gateways, which come and go while
    connections last."""
    ports: dict[int, tuple[BoundServer, ...]]
    """By the port that the workload listens on."""

    def route_configurations(self) -> Iterator[tuple[str, int, tuple[BoundServer, ...]]]:
        """Name, port and servers of each: plaintext shares one, and TLS has one a server."""
        for port, servers in self.ports.items():
            clear = tuple(server for server in servers if server.server.is_clear_text)
            if clear:
                yield gateway_routes(port, self.owner), clear[0].server.port.number, clear
                continue
            for server in servers:
                if server.server.is_for("http"):
                    name = gateway_routes(port, self.owner, server.name)
                    yield name, server.server.port.number, (server,)

    def secrets_needed(self, namespace: str) -> Iterator[Need]:
        """Yield the secrets that servers need; ``namespace``: the workload's."""
        for servers in self.ports.values():
            for server in servers:
                if server.server.terminates_tls and server.server.tls:
                    user = f"{server.gateway.key}: server {server.server.port.name}"
                    yield from secrets_needed(server.server.tls, namespace, user)


NOT_A_GATEWAY: Final = GatewayPorts("", {})


def gateway_ports(snapshot: Snapshot) -> dict[str, GatewayPorts]:
    """Return the ports of each workload that is a gateway, by uid."""
    if not snapshot.gateways:
        return {}
    listening = _target_ports(snapshot, snapshot.workloads)
    selection = snapshot.options.gateway_selection
    found = (
        (
            uid,
            _of_workload(
                selecting(snapshot.gateways, workload, selection),
                workload,
                listening.get(uid, {}),
            ),
        )
        for uid, workload in snapshot.workloads.items()
    )
    return {uid: ports for uid, ports in found if ports.ports}


def _of_workload(
    chosen: Iterable[Gateway], workload: Workload, listening: Mapping[int, int]
) -> GatewayPorts:
    """Return the ports of a workload that ``chosen`` select."""
    ports: dict[int, list[BoundServer]] = defaultdict(list)
    for gateway in chosen:
        names: set[str | None] = set()
        for index, server in enumerate(gateway.spec.servers):
            number, name = server.port.number, server.port.name
            bound = BoundServer(gateway, server, index, again=name in names)
            names.add(name)
            if (port := listening.get(number, number)) not in _of_proxies(workload):
                ports[port].append(bound)
    by_port = {port: tuple(servers) for port, servers in sorted(ports.items())}
    return GatewayPorts(workload.uid, by_port)


def _of_proxies(workload: Workload) -> Container[int]:
    """Return the ports on which proxies take the workload's traffic, or that of others beside it.

    A server on one of these would keep them from it.
    """
    return {*OWN_PORTS, *HOST_PORTS} if workload.host else OWN_PORTS


def opened_ports(snapshot: Snapshot) -> dict[str, frozenset[int]]:
    """Return the ports that Gateways open, on any node, by the place that each endpoint names."""
    selected: dict[str, tuple[Gateway, ...]] = {}
    selection = snapshot.options.gateway_selection
    for service in snapshot.services.values() if snapshot.gateways else ():
        for endpoint in service.endpoints:
            if place_of(endpoint) not in selected:
                selected[place_of(endpoint)] = selecting(snapshot.gateways, endpoint, selection)
    gateways = {place: chosen for place, chosen in selected.items() if chosen}
    listening = _target_ports(snapshot, gateways)
    return {
        place: frozenset(
            listening.get(place, {}).get(server.port.number, server.port.number)
            for gateway in chosen
            for server in gateway.spec.servers
        )
        for place, chosen in gateways.items()
    }


def selecting(
    gateways: Iterable[Gateway], one: Workload | Endpoint, selection: GatewaySelection
) -> tuple[Gateway, ...]:
    """Return the Gateways that select a workload, or that of an endpoint."""
    labels, namespace = one.labels, one.namespace
    return tuple(gateway for gateway in gateways if gateway.selects(labels, namespace, selection))


def place_of(endpoint: Endpoint) -> str:
    """Return a key that all endpoints of one workload share: its uid, or its address elsewhere.

    Another namespace may list the same address, under labels that its own Gateways select.
    """
    return endpoint.workload or f"{endpoint.namespace}/{endpoint.address}"


def _target_ports(snapshot: Snapshot, places: Container[str]) -> dict[str, dict[int, int]]:
    """Return, for each place, a Service's port → the place's own port behind it."""
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for service in snapshot.services.values():
        for endpoint in service.endpoints:
            if (place := place_of(endpoint)) in places:
                found[place][endpoint.service_port] = endpoint.port
    return found
