"""Finds where a client outside the mesh enters it: the listener of a gateway's port. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshd import wire
from meshd.compile.clients import identity_of
from meshd.compile.explain.chain_choice import Chosen, Connection, chosen_at
from meshd.compile.explain.wanted import server_name_of, split
from meshd.compile.gateway import gateway
from meshd.compile.gateway.ports import BoundServer, GatewayPorts, gateway_ports
from meshd.compile.names import gateway_listener_name
from meshd.compile.plan.chains import Http, MeshTls, ServerTls
from meshd.compile.visibility.view import View
from meshd.matching.request import FORWARDED_FOR, FORWARDED_PROTO
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


class Entrance(msgspec.Struct, frozen=True):
    """A port of a gateway, and what it does with one connection."""

    ports: GatewayPorts
    number: int
    connection: Connection
    chosen: Chosen | None
    """None: no server wants the connection."""

    def routed_by(self) -> tuple[str, int, tuple[BoundServer, ...]]:
        """Return the name of the requests' route table, its port and its servers."""
        assert self.chosen  # noqa: S101  (it leads to HTTP)
        target = self.chosen.chain.target
        assert isinstance(target, Http)  # noqa: S101
        tables = self.ports.route_configurations()
        return next(table for table in tables if table[0] == target.routes)


def entrance(
    snapshot: Snapshot, workload: Workload, view: View, port: int, request: wire.Explain
) -> Entrance | None:
    """Return the entrance at a port of a gateway; None: the workload has no such port.

    ``port``: that of the servers of its Gateways, or the one that the workload opens for them.
    """
    ports = gateway_ports(snapshot).get(workload.uid, GatewayPorts("", {}))
    number = next((own for own, servers in ports.ports.items() if _has(port, own, servers)), None)
    if number is None:
        return None
    identity = identity_of(workload, snapshot.options)
    listeners = gateway.workload_listeners(
        workload, identity, ports, view, snapshot.options, lambda _: True
    )
    wanted = gateway_listener_name(workload.uid, number)
    listener = next((one for one in listeners if one.name == wanted), None)
    connection = _connection(workload, number, ports.ports[number], request)
    chosen = chosen_at(listener, connection) if listener else None
    return Entrance(ports, number, connection, chosen)


def entered(request: wire.Explain) -> tuple[tuple[str, str], ...]:
    """Return the headers of a request once the gateway has written those that are its own: it takes
    no client's word for its scheme and address."""
    own = {FORWARDED_PROTO, FORWARDED_FOR}
    others = (each for each in request.headers if each[0].lower() not in own)
    return (*others, (FORWARDED_FOR, request.client)) if request.client else tuple(others)


def _has(port: int, own: int, servers: tuple[BoundServer, ...]) -> bool:
    return port == own or any(port == server.server.port.number for server in servers)


def _connection(
    workload: Workload, port: int, servers: tuple[BoundServer, ...], request: wire.Explain
) -> Connection:
    expected: Literal["tls", "http"] = (
        "tls" if any(server.server.is_tls for server in servers) else "http"
    )
    begins_as = request.begins_as or expected
    host, _ = split(request.destination)
    return Connection(
        address=next(iter(workload.addresses), ""),
        port=port,
        begins_as=begins_as,
        server_name=(request.server_name or server_name_of(host.lower()))
        if begins_as == "tls"
        else "",
        now=request.now,
    )


def tell_tls(tls: MeshTls | ServerTls | None) -> str:
    """Say which TLS ends at the gateway."""
    match tls:
        case None:
            return "none ends here"
        case MeshTls(identity):
            return f"the mesh's mutual TLS ends here, as {identity.uri}"
        case ServerTls():
            clients = tls.clients
            asked = "asked for" if clients and not clients.required else "required"
            of_client = f", a client certificate is {asked}" if clients else ""
            return f"ends here, with {', '.join(tls.certificates) or 'no certificate'}{of_client}"
