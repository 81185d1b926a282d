"""Explains a connection: what its client says first, and the chains at both of its ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from meshd import wire
from meshd.api.protocol import Protocol
from meshd.compile.clients import identity_of
from meshd.compile.explain.chain_choice import Chosen, Connection, chosen_at, follow
from meshd.compile.explain.wanted import Wanted, server_name_of
from meshd.compile.names import LOCAL, scope_listener_name
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import Http, Refusal
from meshd.compile.plan.upstreams import Assignment, Eds, Upstream
from meshd.compile.policy import straight
from meshd.compile.policy.peer_authentication import PeerPolicy
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic import dns, inbound, outbound
from meshd.compile.traffic.inbound_routes import NOBODY
from meshd.compile.traffic.scope_listeners import scope_choices, scope_listeners
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.short_way import Requests
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

_NOT_READ: Final = frozenset({Spoken.OPAQUE, None})
"""What is declared of ports whose bytes go on as they are."""


def client_connection(view: View, wanted: Wanted, request: wire.Explain) -> Connection:
    """Return the connection of a client that speaks what it is said to speak, or what the port of
    the service is for."""
    begins_as = request.begins_as or _expected(view, wanted.service, wanted.port)
    is_tls = begins_as == "tls"
    return Connection(
        address=wanted.address,
        port=wanted.port,
        begins_as=begins_as,
        server_name=(request.server_name or server_name_of(wanted.host)) if is_tls else "",
        now=request.now,
    )


def _expected(
    view: View, service: ServiceRecord | None, port: int
) -> Literal["tls", "http", "other"]:
    own = service.protocols.get(port) if service else None
    spoken = own or view.protocols(port)
    if any(one.is_for("http") for one in spoken):
        return "http"
    return "tls" if spoken & {Protocol.TLS, Protocol.HTTPS} else "other"


def at_client(view: View, connection: Connection, resolver: str) -> tuple[Chosen, ...]:
    """Return the chains at the listeners of the client's scope, in order."""
    direct, inspecting = scope_listeners(
        view.scope.name, scope_choices(view, view.options), resolver, view.options
    )
    return tuple(follow(direct, (inspecting,), connection))


def tell_listener(view: View, source: Workload, connection: Connection) -> str:
    """Say which listener chooses for a client's connection: its own, or that of its scope."""
    requests, options = scope_choices(view, view.options).requests, view.options
    identity = identity_of(source, options)
    listener = outbound.workload_listener(source, identity, view.scope.name, requests, options)
    chosen = chosen_at(listener, connection)
    if chosen and isinstance(chosen.chain.target, Http):
        return f"{listener.name}, which routes requests to port {connection.port}"
    return f"{listener.name} → {scope_listener_name(view.scope.name)}"


def tell_chain(chosen: tuple[Chosen, ...], connection: Connection) -> str:
    """Say which chain was chosen, and why."""
    last = chosen[-1]
    parts = [last.chain.name]
    if len(chosen) > 1:
        name = f" with the server name {connection.server_name}" if connection.server_name else ""
        parts.append(f"by its first bytes ({connection.begins_as}{name})")
    if last.origin:
        parts.append(f"of {last.origin}")
    return ", ".join(parts)


def is_query(chosen: tuple[Chosen, ...]) -> bool:
    """Return whether a connection goes to the resolver of the mesh's names."""
    return chosen[-1].chain.name == dns.DNS_CHAIN


def tell_destination(  # noqa: PLR0917
    workload: Workload,
    ports: Ports,
    policy: PeerPolicy,
    options: MeshOptions,
    connection: Connection,
    guard: Authorization | None = None,
    *,
    mutual_tls: bool,
) -> str:
    """Say what a workload's own proxy does with a connection; ``mutual_tls``: it comes inside the
    mesh's; ``guard``: who may connect."""
    arriving = connection
    if mutual_tls:
        arriving = msgspec.structs.replace(connection, begins_as="tls", offers_mesh_tls=True)
    identity = identity_of(workload, options)
    listener = inbound.workload_listener(workload, identity, ports, policy, options)
    mode = f"{policy.mode_of(connection.port)} ({policy.origin_of(connection.port) or 'default'})"
    chosen = chosen_at(listener, arriving)
    said = f"{listener.name} port {connection.port}: mutual TLS {mode}"
    if chosen is None or isinstance(chosen.chain.target, Refusal):
        return f"{said}, refused: the client does not begin mutual TLS"
    entry = next(entry for entry in inbound.ENTRIES if entry.chain == chosen.chain.name)
    guards = {workload.uid: guard} if guard else NOBODY
    shared = inbound.shared_listeners({workload.uid: ports}, options, guards)
    inside = next(one for one in shared if one.name == entry.listener)
    served = chosen_at(inside, connection)
    onward = f" → {served.chain.name}" if served else ""
    return f"{said}, chain {chosen.chain.name}{onward}"


def requests_of(
    view: View, upstream: Upstream, assignments: Mapping[str, Assignment], connection: Connection
) -> Requests:
    """Return what an upstream sends by the short way for a client's connection. A gateway says
    itself for whom requests are."""
    if view.of_gateway or connection.begins_as != "http":
        return ""
    if not isinstance(upstream.discovery, Eds):
        return ""
    return assignments[upstream.discovery.name].requests


def tell_short_way(ports: Ports, port: int, sent: Requests, *, judged: bool = False) -> str:
    """Say what becomes of what comes to a workload's port by the short way; ``judged``: policies
    are about the workload."""
    spoken = ports.get(port)
    why = "" if spoken in _NOT_READ else straight.obstacle(spoken, sent, judged=judged)
    how = f"read once more, since {why}" if why else "straight to the application"
    return f"{LOCAL} port {port}: {how}"
