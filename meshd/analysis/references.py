"""What objects say of one another. Warnings: the other object may be applied a moment later, and
the order of applying must not matter. Errors are only what objects come to together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from meshd.analysis import effects, route_effects
from meshd.analysis.effects import ROOT, Said
from meshd.analysis.reachability import unreached
from meshd.analysis.secret_references import of_secrets
from meshd.analysis.world import World, bare_host
from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Key, Object
from meshd.api.counts import too_many
from meshd.api.decode import Path
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.finding import Finding
from meshd.api.gateway.types import MESH, SELECTION, Gateway, GatewaySelection, gateway_name
from meshd.api.kubernetes.types import Namespace, Secret, Service, ServiceAccount
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.read import Read
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.service_entry.types import ServiceEntry, WorkloadEntry, WorkloadGroup
from meshd.api.virtual_service.delegation import delegate_key, merge_route, why_not
from meshd.api.virtual_service.types import Destination, VirtualService
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.weight import weigh
from meshd.model.workload import Workload


def check_references(
    reads: Iterable[Read],
    known: Mapping[Key, Object],
    domain: str = "cluster.local",
    workloads: Sequence[Workload] | None = None,
    gateway_selection: GatewaySelection = SELECTION,
) -> tuple[Finding, ...]:
    """Return warnings about references.

    ``known`` are the objects in force; those of ``reads`` replace them. ``workloads``: all that run
    in the mesh, if that is known.
    """
    reads = tuple(read for read in reads if not any(too_many(read.object)))
    objects = {**known, **{read.object.key: read.object for read in reads}}
    world = World(objects, domain, workloads, gateway_selection=gateway_selection)
    findings: list[Finding] = []
    for read in reads:
        excess = weigh(read.object, world)
        if excess.why:
            findings.append(read.finding(("spec",), excess.why))
            continue
        findings += (read.finding(("spec",), line, "warning") for line in excess.lines())
        said = itertools.chain(
            *(about(read.object, world) for about in ABOUT.get(type(read.object), ())),
            of_secrets(read.object, objects, workloads, gateway_selection),
            unreached(read.object, world),
        )
        findings += (read.finding(path, message, "warning") for path, message in said)
    return tuple(findings)


def of_virtual_service(found: VirtualService, world: World) -> Said:
    """Return warnings about what a VirtualService refers to that is missing or different."""
    for index, name in enumerate(found.spec.gateways):
        namespace, _, short = gateway_name(name, found.metadata.namespace).partition("/")
        key = Key("Gateway", namespace, short)
        if name != MESH and key not in world.objects:
            yield ("spec", "gateways", index), f"{key} not found"
    for path, destination in _destinations(found):
        host = world.full(destination.host, found)
        if not world.is_host(host):
            yield (*path, "host"), f'"{destination.host}" is not a Service or ServiceEntry ({host})'
        if destination.subset:
            yield from _of_subset((*path, "subset"), destination, host, world)
        yield from _of_port(path, destination, host, world, own=_is_own(host, found, world))
    yield from _of_delegations(found, world)
    if MESH in (found.spec.gateways or (MESH,)):
        for index, host in enumerate(found.spec.hosts):
            others = [one.key for one in world.owners[world.full(host, found)]]
            if rivals := [str(key) for key in others if key != found.key]:
                message = f'"{host}" is also in {rivals[0]}; in the mesh only the older counts'
                yield ("spec", "hosts", index), message


def _of_subset(path: Path, destination: Destination, host: str, world: World) -> Said:
    known = world.subsets_of(host)
    if destination.subset not in known:
        listed = f" (known: {', '.join(sorted(known))})" if known else ""
        text = (
            f'"{destination.subset}" is in no DestinationRule for host {destination.host}{listed}'
        )
        yield path, text
        return
    everywhere = {declared.key.namespace for declared in world.covered(host)} | {ROOT}
    rules = sorted(known[destination.subset])
    if not {rule.namespace for rule in rules} & everywhere and len(everywhere) > 1:
        yield (
            path,
            f'"{destination.subset}" is in {rules[0]}, which counts for clients in '
            f"{rules[0].namespace} only: requests of others are answered 503. A rule for all is "
            f"in {' or '.join(sorted(everywhere))}",
        )


def _is_own(host: str, found: VirtualService, world: World) -> bool:
    """Return whether only requests to that host, which are to one of its ports, are routed to
    it."""
    hosts = {world.full(one, found) for one in found.spec.hosts}
    return found.is_delegate or (hosts == {host} and set(found.spec.gateways) <= {MESH})


def _of_port(path: Path, destination: Destination, host: str, world: World, *, own: bool) -> Said:
    """Return a warning about a destination's port, which defaults to the service's only one, or the
    request's."""
    ports = {number for declared in world.declared.get(host, ()) for number in declared.protocols}
    listed = ", ".join(map(str, sorted(ports)))
    wanted = destination.port.number if destination.port else None
    if wanted is None and len(ports) > 1 and not own:
        text = f"has no port, and {host} has several ({listed}): the port of the request is taken"
        yield path, text
    elif wanted is not None and ports and wanted not in ports:
        yield (*path, "port", "number"), f"{wanted} is not a port of {host} (known: {listed})"


def _of_delegations(found: VirtualService, world: World) -> Said:
    here = found.metadata.namespace
    for index, route in enumerate(found.spec.http):
        if route.delegate is None:
            continue
        path: Path = ("spec", "http", index, "delegate")
        key = delegate_key(route.delegate, here)
        delegate = world.objects.get(key)
        if reason := why_not(delegate, key, here):
            yield path, f"{reason}; requests skip this route"
        elif isinstance(delegate, VirtualService):
            for number, one in enumerate(delegate.spec.http):
                if merge_route(route, one) is None:
                    text = f"{key}: http[{number}] has no effect: its match is not a subset of this"
                    yield (*path[:-1], "match"), text


def _destinations(found: VirtualService) -> Iterator[tuple[Path, Destination]]:
    for protocol, routes in (
        ("http", found.spec.http),
        ("tls", found.spec.tls),
        ("tcp", found.spec.tcp),
    ):
        for index, route in enumerate(routes):
            for number, one in enumerate(route.route):
                path: Path = ("spec", protocol, index, "route", number, "destination")
                yield path, one.destination
    for index, route in enumerate(found.spec.http):
        if route.mirror:
            yield ("spec", "http", index, "mirror"), route.mirror
        for number, mirror in enumerate(route.mirrors):
            yield ("spec", "http", index, "mirrors", number, "destination"), mirror.destination


def _of_service(found: Service, world: World) -> Said:
    own = found.spec.cluster_ip or ""
    if rival := next((key for key in world.addresses.get(own, ()) if key != found.key), None):
        yield ("spec", "clusterIP"), f"{own} is the address of {rival} too; one of them has it"


def _beyond(found: Service | ServiceEntry, world: World) -> Said:
    """Return warnings about ports at which VirtualServices of other namespaces are closed."""
    namespace = found.metadata.namespace
    for host in {one.host for one in world.declarations(found)}:
        for routes in world.routing(host):
            closed = [
                port
                for owner, name, port in weigh(routes, world).ports
                if (owner, name) == (namespace, host)
            ]
            if closed:
                some = f"{len(closed)} of its ports (such as {min(closed)})"
                text = f"at {some} the routes of {routes.key} are closed"
                yield ("spec", "ports"), f"{text}: there are too many for all; declare fewer ports"


def _of_gateway(found: Gateway, world: World) -> Said:
    """Return warnings about hosts that another Gateway serves on the same port of the same
    workloads."""
    for index, server in enumerate(found.spec.servers):
        for number, host in enumerate(server.hosts):
            others = world.served.get((server.port.number, bare_host(host)), ())
            rivals = (one for one in others if one.key != found.key and _meet(found, one, world))
            if rival := next(rivals, None):
                path: Path = ("spec", "servers", index, "hosts", number)
                yield path, f'"{host}" is on port {server.port.number} of {rival.key} too'


def _meet(one: Gateway, other: Gateway, world: World) -> bool:
    """Return whether the same workload may serve both."""
    mine, theirs = one.spec.selector, other.spec.selector
    apart = one.metadata.namespace != other.metadata.namespace
    return not (apart and world.gateway_selection == "own-namespace") and all(
        theirs.get(key, value) == value for key, value in mine.items()
    )


def _of_peer_authentication(found: PeerAuthentication, world: World) -> Said:
    same = (
        one
        for one in world.objects.values()
        if isinstance(one, ClosedPolicy) and one.metadata.namespace == found.metadata.namespace
    )
    if closed := next((one for one in same if one.key != found.key), None):
        yield (
            ("spec",),
            f"{closed.key} is not in force, so that the whole namespace takes mutual TLS only,"
            " whatever this says",
        )
        return
    if found.spec.selector and found.spec.selector.match_labels:
        return
    for key, other in world.objects.items():
        if (
            isinstance(other, PeerAuthentication)
            and key != found.key
            and key.namespace == found.metadata.namespace
            and not (other.spec.selector and other.spec.selector.match_labels)
        ):
            yield ("spec",), f"{key} is for the whole namespace too; only the oldest counts"
            return


ABOUT: Final[dict[type[Object], tuple[Callable[[Any, World], Said], ...]]] = {
    Namespace: (),
    ServiceAccount: (),
    Service: (_of_service, _beyond, effects.of_service),
    Secret: (),
    VirtualService: (of_virtual_service, route_effects.of_virtual_service),
    DestinationRule: (effects.of_destination_rule,),
    Gateway: (_of_gateway, effects.of_gateway),
    ServiceEntry: (_beyond, effects.of_service_entry),
    WorkloadEntry: (),
    WorkloadGroup: (),
    PeerAuthentication: (_of_peer_authentication, effects.of_peer_authentication),
    AuthorizationPolicy: (effects.of_authorization_policy,),
    RequestAuthentication: (effects.of_request_authentication,),
}
"""What is said of each kind that is stored, in view of all other objects."""
