"""Finds what a change takes from other objects: destinations, subsets, gateways."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from meshd.analysis.effects import destinations
from meshd.analysis.references import of_virtual_service
from meshd.analysis.secret_references import left_without
from meshd.analysis.world import World
from meshd.api.base import Key, Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import MESH, SELECTION, GatewaySelection, gateway_name
from meshd.api.hosts import covers, service_host
from meshd.api.kubernetes.types import Service
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.virtual_service.delegation import delegate_key
from meshd.api.virtual_service.types import VirtualService
from meshd.api.yaml import show_path
from meshd.model.workload import Workload

Objects = Mapping[Key, Object]


def newly_dangling(  # noqa: PLR0917 - what is known, from everywhere
    before: Objects,
    after: Objects,
    changed: Collection[Key],
    workloads: Sequence[Workload] | None = None,
    domain: str = "cluster.local",
    gateway_selection: GatewaySelection = SELECTION,
) -> tuple[str, ...]:
    """Return a line for each reference of other objects that a change breaks.

    ``changed`` are the objects that are applied or deleted.
    """
    deleted = [key for key in changed if key not in after]
    return (
        *left_without(deleted, after, workloads, gateway_selection),
        *_dangling(before, after, frozenset(changed), domain),
    )


def _dangling(
    before: Objects, after: Objects, changed: frozenset[Key], domain: str
) -> Iterator[str]:
    """Yield the lines; the costly lookup tables are made only if another object refers to a
    change."""
    services = {
        service_host(key.name, key.namespace, domain)
        for objects in (before, after)
        for key in objects
        if key.kind == Service.KIND
    }
    names = World({}, domain, services=services)
    hosts = frozenset(
        host
        for objects in (before, after)
        for key in changed
        if (found := objects.get(key))
        for host in _of(found, names)
    )
    concerned = [
        found
        for key, found in after.items()
        if isinstance(found, VirtualService)
        and key not in changed
        and _concerned(found, names, hosts, changed)
    ]
    if not concerned:
        return
    old, new = World(before, domain), World(after, domain)
    for found in concerned:
        known = set(of_virtual_service(found, old))
        for path, message in of_virtual_service(found, new):
            if (path, message) not in known:
                yield f"{found.key}: {show_path(path)}: {message}"


def _of(found: Object, world: World) -> Iterator[str]:
    """Yield the hosts that an object refers to."""
    match found:
        case DestinationRule():
            yield world.full(found.spec.host, found)
        case Service() | ServiceEntry():
            yield from (one.host for one in world.declarations(found))
        case _:
            pass


def _concerned(
    found: VirtualService, world: World, hosts: frozenset[str], changed: frozenset[Key]
) -> bool:
    here = found.metadata.namespace
    named = {world.full(one.host, found) for one in destinations(found)}
    if named & hosts or any(covers(host, one) for host in hosts if "*" in host for one in named):
        return True
    gateways = (gateway_name(name, here) for name in found.spec.gateways if name != MESH)
    delegates = (route.delegate for route in found.spec.http if route.delegate)
    keys = {
        *(Key("Gateway", *name.split("/", maxsplit=1)) for name in gateways),
        *(delegate_key(one, here) for one in delegates),
    }
    return not keys.isdisjoint(changed)
