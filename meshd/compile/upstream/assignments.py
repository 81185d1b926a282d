"""Assignments: the endpoints of upstreams, in the order in which their clients use them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Final

from meshd.api.destination_rule.types import LocalityLbSetting
from meshd.api.protocol import Protocol
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.upstreams import Assignment, Group, Order, Place
from meshd.compile.upstream import hbone, short_way
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.nearness import Client, by_nearness
from meshd.compile.upstream.traffic_policy import effective_policy, upstream_protocol
from meshd.model.service import Endpoint, ServiceRecord
from meshd.model.short_way import Requests
from meshd.model.snapshot import MeshOptions

_OPTIONS: Final = MeshOptions()


def place(
    endpoint: Endpoint, *, inside: bool = False, tunneled: MeshOptions | None = None
) -> Place:
    """Return an endpoint as clients see it; ``inside``: they may take the short way to it;
    ``tunneled``: and a tunnel, under these options."""
    return Place(
        endpoint.address,
        endpoint.port,
        max(endpoint.weight, 1),
        endpoint.mutual_tls,
        endpoint.workload,
        endpoint.inside if inside else None,
        hbone.tunnel_to(endpoint, tunneled) if tunneled else None,
    )


def has_labels(endpoint: Endpoint, labels: Mapping[str, str]) -> bool:
    return labels.items() <= endpoint.labels.items()


def chosen_endpoints(
    service: ServiceRecord, rules: RuleSet, name: OutboundCluster
) -> list[Endpoint]:
    """Return the endpoints of an upstream's port that have the labels of its subset."""
    endpoints = service.endpoints_by_port.get(name.port, ())
    subset = rules.subset(name.subset) if name.subset else None
    if subset is None or not subset.labels:
        return list(endpoints)
    return [endpoint for endpoint in endpoints if has_labels(endpoint, subset.labels)]


def assignment(
    name: str,
    endpoints: Iterable[Endpoint],
    nearness: LocalityLbSetting | None = None,
    client: Client | None = None,
    resting: Iterable[Endpoint] = (),
    *,
    inside: bool = False,
    tunneled: MeshOptions | None = None,
    requests: Requests = "",
) -> Assignment:
    """Return endpoints in groups by their distance from a client, or in one in the order given."""
    order, seen = None, functools.partial(place, inside=inside, tunneled=tunneled)
    if nearness and client:
        order = Order(client.locality, bool(nearness.distribute), nearness.failover_priority)
        groups = tuple(
            Group(
                places=tuple(map(seen, near.endpoints)),
                locality=near.locality,
                priority=near.priority,
                weight=near.weight,
            )
            for near in by_nearness(endpoints, nearness, client)
        )
    else:
        places = tuple(map(seen, endpoints))
        groups = (Group(places),) if places else ()
    return Assignment(name, groups, order, tuple(map(seen, resting)), requests)


def service_assignments(
    service: ServiceRecord, rules: RuleSet, options: MeshOptions = _OPTIONS
) -> dict[str, Assignment]:
    """Return the assignments of all upstreams of a service under these rules, by name.

    Those without a subset are the same for every variant of the rules, unless they are ordered for
    its clients.
    """
    found: dict[str, Assignment] = {}
    if rules.is_closed:
        return found
    subsets = dict.fromkeys(("", *(subset.name for subset in rules.subsets)))
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        for subset in subsets:
            name = OutboundCluster(port.number, service.host, subset, rules.variant, service.apart)
            made = _upstream_assignment(service, rules, name, port.protocol, options)
            found[made.name] = made
    return found


def _upstream_assignment(
    service: ServiceRecord,
    rules: RuleSet,
    upstream: OutboundCluster,
    protocol: Protocol,
    options: MeshOptions,
) -> Assignment:
    endpoints = chosen_endpoints(service, rules, upstream)
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    resting = (
        [endpoint for endpoint in endpoints if not endpoint.ready]
        if len(ready) < len(endpoints)
        else []
    )
    nearness, inside, tunneled = None, False, False
    requests: Requests = ""
    if rules.client or service.near or options.hbone:
        policy = effective_policy(rules, upstream.port, upstream.subset)
        nearness = policy.nearness(service, rules.client)
        inside = service.near and not short_way.obstacle(policy)
        tunneled = not hbone.obstacle(service, protocol, policy, options)
        if inside:
            spoken = upstream_protocol(protocol, policy)
            requests = short_way.requests(spoken, policy, at_gateway=rules.at_gateway)
    name = upstream.assigned(
        near=nearness is not None, inside=inside, tunneled=tunneled, requests=requests
    )
    return assignment(
        name,
        ready,
        nearness,
        rules.client,
        resting,
        inside=inside,
        tunneled=options if tunneled else None,
        requests=requests,
    )
