"""Tells why endpoints are not reached by tunnels, where the setting allows these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.api.protocol import Protocol
from meshd.compile.explain.endpoints import Told
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.upstreams import Eds, Upstream
from meshd.compile.upstream import hbone
from meshd.compile.upstream.assignments import chosen_endpoints
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions

_STAGE: Final = "tunnels"


def tell_tunnels(
    service: ServiceRecord, rules: RuleSet, upstream: Upstream, options: MeshOptions
) -> Iterator[Told]:
    """Yield why an upstream's endpoints have no tunnels: once for all, or of each that has none.

    What is reached by the short way needs none.
    """
    if not options.hbone or not isinstance(upstream.name, OutboundCluster):
        return
    if problem := _obstacle(service, rules, upstream, upstream.name, options):
        yield Told(_STAGE, f"none: {problem}")
        return
    for place in chosen_endpoints(service, rules, upstream.name):
        if upstream.short_way and place.inside:
            continue
        if problem := hbone.endpoint_obstacle(place, options):
            yield Told(_STAGE, f"none to {place.address}:{place.port}: {problem}")


def _obstacle(
    service: ServiceRecord,
    rules: RuleSet,
    upstream: Upstream,
    name: OutboundCluster,
    options: MeshOptions,
) -> str:
    """Return what keeps all connections of an upstream from tunnels; empty: nothing."""
    policy = effective_policy(rules, name.port, name.subset)
    # The port may be declared twice: for UDP, too, which has no upstream.
    spoken = (port.protocol for port in service.ports if port.number == name.port)
    protocol = next(one for one in spoken if one is not Protocol.UDP)
    problem = hbone.obstacle(service, protocol, policy, options)
    if problem or isinstance(upstream.discovery, Eds):
        return problem
    return "the proxy is given no endpoints, but looks them up or takes the client's"
