"""The messages for each part of the mesh: what is planned for it, as Envoy is told.

Each function is pure and looks at nothing but its arguments, so that its result can be remembered
by them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from google.protobuf.message import Message

from meshd.compile.envoy import runtime
from meshd.compile.envoy.assignments import load_assignment
from meshd.compile.envoy.clusters import cluster
from meshd.compile.envoy.copies import provider_table
from meshd.compile.envoy.hbone import hbone_routes as printed_hbone_routes
from meshd.compile.envoy.inbound_routes import inbound_routes as printed_inbound_routes
from meshd.compile.envoy.listeners import listener
from meshd.compile.envoy.printed_listeners import PrintedChoice, PrintedListener, printed_choice
from meshd.compile.envoy.printed_messages import PrintedMessage
from meshd.compile.http import asking
from meshd.compile.http.mirroring import mirror_listener
from meshd.compile.names import ASKING
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.upstreams import Assignment
from meshd.compile.policy import mutual_tls_timeout
from meshd.compile.policy.authorization import asks_server_name
from meshd.compile.policy.peer_authentication import PeerPolicy
from meshd.compile.policy.served import Ports
from meshd.compile.traffic import dns, hbone, inbound, local, outbound, shares
from meshd.compile.traffic.entries import ENTRIES
from meshd.compile.traffic.hbone import Receiver
from meshd.compile.traffic.inbound_routes import Guards, inbound_routes
from meshd.compile.traffic.scope_listeners import ScopeChoices, scope_choices, scope_listeners
from meshd.compile.upstream import assignments
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.fixed import inbound_upstreams, internal, resolver_upstreams
from meshd.compile.upstream.hbone import tunnels
from meshd.compile.upstream.upstreams import black_hole, passthrough, service_upstreams
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.short_way import own_address
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Identity, Workload

Messages = tuple[Message, ...]
PrintedMessages = tuple[PrintedMessage, ...]


def limits(listeners: tuple[str, ...], counts: Mapping[str, int]) -> Message:
    """Return the limits of all workloads."""
    return runtime.limits(shares.limits(listeners, counts))


def dns_clusters(options: MeshOptions, resolvers: Mapping[str, str]) -> Messages:
    """Return the clusters of the resolvers."""
    return tuple(map(cluster, resolver_upstreams(options, resolvers, udp=True)))


def dns_listeners(workload: Workload, resolver: str, options: MeshOptions) -> Messages:
    """Return the listener for a workload's queries; ``workload``: see ``placed``."""
    return (listener(dns.workload_listener(workload, resolver, options)),)


def fixed_clusters(
    served: Mapping[str, Ports], resolvers: Mapping[str, str], options: MeshOptions
) -> Messages:
    """Return the clusters that do not depend on services."""
    upstreams = (
        black_hole(options),
        passthrough(options),
        *resolver_upstreams(options, resolvers, udp=False),
        *inbound_upstreams(served.values(), options),
        *(internal(entry.listener) for entry in ENTRIES),
        *(local.local_upstreams() if options.short_way else ()),
        *(tunnels(options) if options.hbone else ()),
    )
    return tuple(map(cluster, upstreams))


def shared_listeners(served: Mapping[str, Ports], options: MeshOptions, guards: Guards) -> Messages:
    """Return the inbound listeners that workloads share."""
    return tuple(map(listener, inbound.shared_listeners(served, options, guards)))


def local_listeners(
    served: Mapping[str, Ports], callers: tuple[str, ...], options: MeshOptions, guards: Guards
) -> Messages:
    """Return the listeners of the short way."""
    return tuple(map(listener, local.local_listeners(served, callers, options, guards)))


def tunneling_listeners(options: MeshOptions) -> Messages:
    """Return the listener from which connections go into tunnels."""
    return (listener(hbone.tunneling_listener(options)),)


def receiving_clusters(receivers: tuple[Receiver, ...]) -> Messages:
    """Return the clusters to which tunnels to workloads lead."""
    return tuple(map(cluster, hbone.receiving_upstreams(receivers)))


def receiving_tables(receivers: tuple[Receiver, ...]) -> Messages:
    """Return the route table of tunnels to workloads."""
    return (printed_hbone_routes(hbone.receiving_routes(receivers)),)


def inbound_tables(
    served: Mapping[str, Ports],
    accounts: tuple[tuple[str, str], ...],
    options: MeshOptions,
    guards: Guards,
) -> Messages:
    """Return the route tables of inbound traffic."""
    tables = inbound_routes(served, accounts, options, guards)
    return tuple(map(printed_inbound_routes, tables))


def copy_listeners(options: MeshOptions) -> Messages:
    """Return the listener through which copies of requests go."""
    return (listener(mirror_listener(options)),)


def asking_clusters() -> Messages:
    """Return the cluster of questions to extension providers."""
    return (cluster(asking.asking_upstream()),)


def asking_listeners(options: MeshOptions) -> Messages:
    """Return the listener through which they go."""
    return (listener(asking.asking_listener(options)),)


def asking_tables(destinations: tuple[tuple[str, str], ...]) -> Messages:
    """Return the route table by which they go on."""
    return (provider_table(ASKING, destinations),)


@dataclasses.dataclass(frozen=True, slots=True)
class Entrance:
    """All that a workload's listener for incoming connections depends on."""

    workload: Workload
    """See ``placed``."""
    identity: Identity
    ports: Ports
    policy: PeerPolicy
    options: MeshOptions
    guard: Authorization | None = None

    def under(self, policy: PeerPolicy, guard: Authorization | None = None) -> Entrance:
        """Return it under another policy; ``guard``: other rules, if there are any."""
        asking = guard if asks_server_name(guard) else self.guard
        return dataclasses.replace(self, policy=policy, guard=asking)


def entrance_listener(entrance: Entrance) -> Message:
    """Return a workload's listener for incoming connections."""
    identity, ports, options = entrance.identity, entrance.ports, entrance.options
    planned = inbound.workload_listener(
        entrance.workload, identity, ports, entrance.policy, options, entrance.guard
    )
    return listener(planned)


def workload_listeners(entrance: Entrance, scope: str, requests: tuple[int, ...]) -> Messages:
    """Return a workload's own listeners; ``requests``: see ``ScopeChoices``."""
    workload, identity, options = entrance.workload, entrance.identity, entrance.options
    return (
        listener(outbound.workload_listener(workload, identity, scope, requests, options)),
        entrance_listener(entrance),
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """How a scope's connections find their chains, planned and printed. Told by identity."""

    planned: ScopeChoices
    direct: PrintedChoice
    inspected: PrintedChoice


def client_choices(view: View, options: MeshOptions) -> Choices:
    """Return how connections of a view's clients find their chains."""
    planned = scope_choices(view, options)
    return Choices(planned, printed_choice(planned.direct), printed_choice(planned.inspected))


def client_listeners(
    scope: str, choices: Choices, resolver: str, options: MeshOptions
) -> tuple[PrintedListener, ...]:
    """Return the listeners that the clients of a scope share."""
    direct, inspected = scope_listeners(scope, choices.planned, resolver, options)
    return (
        PrintedListener.of(direct, choices.direct, inspected.name, choices.planned.left),
        PrintedListener.of(inspected, choices.inspected),
    )


def service_clusters(
    shaped: ServiceRecord, rules: RuleSet, options: MeshOptions, served: frozenset[str]
) -> PrintedMessages:
    """Return the clusters of a service for some rules; ``shaped``: see ``shape``."""
    made = map(cluster, service_upstreams(shaped, rules, options, served))
    return tuple(map(PrintedMessage.of, made))


def service_assignments(
    service: ServiceRecord, rules: RuleSet, options: MeshOptions
) -> PrintedMessages:
    """Return the load assignments of a service for some rules."""
    planned = assignments.service_assignments(service, rules, options)
    return tuple(map(_printed_assignment, planned.values()))


def _printed_assignment(planned: Assignment) -> PrintedMessage:
    printed = PrintedMessage.of(load_assignment(planned))
    if not (listeners := planned.listeners):
        return printed
    directly = PrintedMessage.of(load_assignment(planned.directly()))
    return dataclasses.replace(printed, listeners=listeners, directly=directly.body)


def placed(workload: Workload, *, short_way: bool = False) -> Workload:
    """Return a workload with no more than what its listeners depend on: neither readiness, labels
    nor addresses, which may change as they like.

    ``short_way``: they depend on the address that others see on the short way, too.
    """
    host = workload.host
    address = own_address(workload) if short_way else ""
    return Workload(
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        netns=workload.netns,
        service_account=workload.service_account,
        addresses=(address,) if address else (),
        annotations={
            name: text
            for name, text in workload.annotations.items()
            if name == mutual_tls_timeout.ANNOTATION
        },
        host=host
        and HostService(
            cgroup="", outbound_port=host.outbound_port, inbound_port=host.inbound_port
        ),
    )
