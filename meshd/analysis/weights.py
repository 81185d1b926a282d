"""Objects that would make more of proxies' configuration than is taken, with those around them."""

from __future__ import annotations

from meshd.analysis.world import World
from meshd.api.base import Key, Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import MESH, Gateway, gateway_name
from meshd.api.protocol import Protocol
from meshd.api.virtual_service.types import HTTPRoute, VirtualService
from meshd.model.weight import gateway_entrances, too_many_routes, too_many_subsets


def too_heavy(found: Object, world: World) -> str:
    """Return why an object is too heavy; empty if it is not."""
    if isinstance(found, DestinationRule) and found.spec.subsets:
        return too_many_subsets(found, _ports(world.full(found.spec.host, found), world))
    if isinstance(found, VirtualService):
        return too_many_routes(
            found, _entrances(found, world), lambda route: _delegate(route, found, world)
        )
    return ""


def _ports(host: str, world: World) -> int:
    declared = world.covered(host) if host.startswith("*") else world.declared.get(host, ())
    return sum(
        protocol is not Protocol.UDP for one in declared for protocol in one.protocols.values()
    )


def _entrances(found: VirtualService, world: World) -> int:
    """Return the number of hosts, counted for each port. A delegate is looked at once by itself."""
    names = found.spec.gateways or (MESH,)
    entrances = not found.spec.hosts
    for name in names:
        if name == MESH:
            entrances += sum(_ports(world.full(one, found), world) or 1 for one in found.spec.hosts)
            continue
        namespace, _, short = gateway_name(name, found.metadata.namespace).partition("/")
        gateway = world.objects.get(Key("Gateway", namespace, short))
        if isinstance(gateway, Gateway):
            entrances += gateway_entrances(gateway.spec.servers, found.spec.hosts)
    return max(1, entrances)


def _delegate(route: HTTPRoute, found: VirtualService, world: World) -> VirtualService | None:
    if route.delegate is None:
        return None
    namespace = route.delegate.namespace or found.metadata.namespace
    named = world.objects.get(Key("VirtualService", namespace, route.delegate.name))
    return named if isinstance(named, VirtualService) else None
