"""Finds what can have no effect, because no request or connection reaches it.

All are warnings, as with references: what is missing may be applied a moment later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from meshd.analysis.world import World
from meshd.api.authorization_policy.conditions import asks_tokens, header_of
from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.decode import Path
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import (
    GATEWAY_LABELS,
    Gateway,
    fits,
    remedy,
)
from meshd.api.hosts import covers
from meshd.api.kubernetes.types import Service
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.virtual_service.types import (
    Destination,
    VirtualService,
)
from meshd.model.interception import HOST_PORTS, OWN_PORTS
from meshd.model.workload import Workload

Said = Iterator[tuple[Path, str]]
ROOT: Final = "istio-system"
"""The root namespace, where nothing else is set."""


def of_gateway(found: Gateway, world: World) -> Said:
    yield from _of_gateway_selector(found, ("spec", "selector"), world)
    yield from _of_others(found, ("spec", "selector"), world)
    for index, server in enumerate(found.spec.servers):
        path = ("spec", "servers", index, "port", "number")
        if server.port.number in OWN_PORTS:
            yield path, f"has no effect: proxies need {server.port.number} for themselves"
        elif server.port.number in HOST_PORTS and (host := _host_selected(found, world)):
            ports = f"{HOST_PORTS[0]} to {HOST_PORTS[-1]}"
            yield path, f"has no effect at {host}: proxies need {ports} for services of hosts"


def _host_selected(found: Gateway, world: World) -> str:
    """Return a service of a host that a Gateway selects; empty: there is none."""
    hosts = (one for one in _selected(found, world) if one.host)
    return next((f"{one.namespace}/{one.name}" for one in hosts), "")


def _selected(found: Gateway, world: World) -> Iterator[Workload]:
    """Yield the workloads, as far as they are known, that a Gateway selects."""
    for one in world.workloads or ():
        if found.selects(one.labels, one.namespace, world.gateway_selection):
            yield one


def of_peer_authentication(found: PeerAuthentication, world: World) -> Said:
    labels = found.spec.selector.match_labels if found.spec.selector else {}
    path = ("spec", "selector", "matchLabels")
    yield from _of_selector(labels, path, world, found.metadata.namespace)


def of_authorization_policy(found: AuthorizationPolicy, world: World) -> Said:
    labels = found.spec.selector.match_labels if found.spec.selector else {}
    path: Path = ("spec", "selector", "matchLabels")
    namespace = found.metadata.namespace
    yield from _of_selector(labels, path, world, "" if namespace == ROOT else namespace)
    if any(map(asks_tokens, found.spec.rules or ())) and not _reads_tokens(world, namespace):
        message = "asks for what tokens say, and no RequestAuthentication has them read there"
        yield ("spec", "rules"), message
    if found.spec.action != "DENY":
        return
    for index, rule in enumerate(found.spec.rules or ()):
        operations = [one.operation for one in rule.to or () if one.operation]
        asks = (
            any(one.hosts or one.methods or one.paths for one in operations)
            or any(header_of(one.key) for one in rule.when or ())
            or asks_tokens(rule)
        )
        if asks and not any(one.ports for one in operations):
            message = (
                "asks for what only HTTP has, so that it denies all connections that are not HTTP;"
                " name the ports that it is for"
            )
            yield ("spec", "rules", index), message


def _reads_tokens(world: World, namespace: str) -> bool:
    """Return whether tokens are read in a namespace; in the root namespace's place, in any."""
    return any(
        isinstance(one, RequestAuthentication)
        and (namespace == ROOT or one.metadata.namespace in {ROOT, namespace})
        for one in world.objects.values()
    )


def of_request_authentication(found: RequestAuthentication, world: World) -> Said:
    labels = found.spec.selector.match_labels if found.spec.selector else {}
    namespace = "" if found.metadata.namespace == ROOT else found.metadata.namespace
    yield from _of_selector(labels, ("spec", "selector", "matchLabels"), world, namespace)


def of_service(found: Service, world: World) -> Said:
    if found.spec.type != "ExternalName" or found.spec.ports:
        return
    if not world.is_host((found.spec.external_name or "").lower().rstrip(".")):
        yield ("spec", "ports"), "has no effect: outside the mesh, only listed ports lead there"


# ---- the others


def of_destination_rule(found: DestinationRule, world: World) -> Said:
    host = world.full(found.spec.host, found)
    services = world.covered(host)
    if not services and not world.is_host(host):
        text = f'has no effect: "{found.spec.host}" is not a Service or ServiceEntry ({host})'
        yield ("spec", "host"), text
        return
    named = _subsets_in_use(world)
    for index, subset in enumerate(found.spec.subsets):
        used = any(covers(host, to) for to in named.get(subset.name, ()))
        if subset.traffic_policy and not used:
            path: Path = ("spec", "subsets", index, "trafficPolicy")
            yield path, f'has no effect: no VirtualService sends anything to subset "{subset.name}"'
    known = {number for service in services for number in service.protocols}
    ports = found.spec.traffic_policy.port_level_settings if found.spec.traffic_policy else ()
    for index, entry in enumerate(ports):
        if services and entry.port.number not in known:
            path = ("spec", "trafficPolicy", "portLevelSettings", index, "port", "number")
            listed = ", ".join(map(str, sorted(known)))
            yield (
                path,
                f"has no effect: {entry.port.number} is not a port of {host} (known: {listed})",
            )
    if found.spec.workload_selector:
        labels = found.spec.workload_selector.match_labels
        path = ("spec", "workloadSelector", "matchLabels")
        yield from _of_selector(labels, path, world, found.metadata.namespace)


def _subsets_in_use(world: World) -> Mapping[str, set[str]]:
    """Return the hosts of all destinations, by the subset."""
    hosts: dict[str, set[str]] = defaultdict(set)
    for found in world.objects.values():
        for one in destinations(found) if isinstance(found, VirtualService) else ():
            if one.subset:
                hosts[one.subset].add(world.full(one.host, found))
    return hosts


def destinations(found: VirtualService) -> Iterator[Destination]:
    spec = found.spec
    for route in (*spec.http, *spec.tls, *spec.tcp):
        yield from (one.destination for one in route.route)
    for route in spec.http:
        yield from [route.mirror] if route.mirror else []
        yield from (one.destination for one in route.mirrors)


def of_service_entry(found: ServiceEntry, world: World) -> Said:
    """Return remarks about an entry without effect.

    The first entry of a namespace that declares a host has it, and one of the same kind adds to it;
    a client's own namespace comes before others.
    """
    yield from _of_owned_addresses(found, world)
    own = found.metadata.namespace
    for index, host in enumerate(found.spec.hosts):
        for other in world.declared[host.lower()]:
            entry = world.objects[other.key]
            if other.key == found.key:
                continue
            there = entry.metadata.namespace
            if own != there:
                consequence = "each is for its own namespace, and one for the others"
            elif (
                not isinstance(entry, ServiceEntry)
                or entry.spec.resolution != found.spec.resolution
            ):
                consequence = "one of them has no effect"
            else:
                continue
            yield (
                ("spec", "hosts", index),
                f'"{host}" is declared by {other.key} too; {consequence}',
            )
            break


def _of_owned_addresses(found: ServiceEntry, world: World) -> Said:
    """Name addresses of Services, which keep their connections.

    Requests are told by their hosts, whoever has the address.
    """
    opaque = {
        port
        for declared in world.declarations(found)
        for port, spoken in declared.protocols.items()
        if spoken.is_for("tcp")
    }
    for index, address in enumerate(found.spec.addresses):
        for key in world.addresses.get(address, ()):
            owner = world.objects[key]
            declared = world.declarations(owner) if isinstance(owner, Service) else ()
            theirs = {port for one in declared for port in one.routed_ports}
            for port in sorted(opaque & theirs):
                message = f"has no effect on port {port}: it is an address of {key}"
                yield ("spec", "addresses", index), message


def _of_others(found: Gateway, path: Path, world: World) -> Said:
    """Name a namespace whose workload becomes a gateway though no label of it says that it is one.

    Whoever may have it serve a Gateway sends requests in its name.
    """
    for workload in _selected(found, world):
        if workload.namespace == found.metadata.namespace:
            continue
        if GATEWAY_LABELS.isdisjoint(workload.labels):
            yield (
                path,
                f"makes a gateway of {workload.name} of namespace {workload.namespace}: requests"
                " through this Gateway are sent in its name; if it is one, give it the label"
                " meshd.io/gateway",
            )
            return


def _of_gateway_selector(found: Gateway, path: Path, world: World) -> Said:
    """Return a remark about a Gateway that selects nothing: there is nothing, or the settings do
    not let it."""
    if next(_selected(found, world), None):
        return
    selector = found.spec.selector
    if owners := {one.namespace for one in world.workloads or () if fits(selector, one.labels)}:
        shown = ", ".join([*sorted(owners)[:3], *(["…"] if len(owners) > 3 else [])])
        selection = world.gateway_selection
        yield (
            path,
            f"has no effect: the workloads with these labels are in other namespaces ({shown}), and"
            f" mesh.gateway_selection is {selection}; {remedy(selection)}",
        )
        return
    yield from _of_selector(selector, path, world, "")


def _of_selector(labels: Mapping[str, str], path: Path, world: World, namespace: str) -> Said:
    """Return a remark about a selector that selects nothing in ``namespace``; empty: in any."""
    if not labels or world.workloads is None:
        return
    for workload in world.workloads:
        if namespace in {"", workload.namespace} and labels.items() <= workload.labels.items():
            return
    where = f" in {namespace}" if namespace else ""
    yield path, f"has no effect: it selects no workload{where} that runs now"
