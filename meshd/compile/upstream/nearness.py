"""Orders a service's endpoints for a client, by where both run. Pure.

After https://istio.io/latest/docs/reference/config/networking/destination-rule/
#LocalityLoadBalancerSetting. Near endpoints first is the default where a rule has outlier
detection, without which a proxy would not notice that it must go further.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshd.api.destination_rule.types import (
    Distribute,
    LoadBalancerSettings,
    LocalityLbSetting,
    OutlierDetection,
)
from meshd.api.locality import HOSTNAME, NETWORK, REGION, SUBZONE, ZONE, matches, parts, shared
from meshd.api.networking import DestinationRuleSpec
from meshd.model.service import Endpoint, Preference, ServiceRecord

_PREFERRED: Final = {
    Preference.SAME_ZONE: (NETWORK, REGION, ZONE),
    Preference.SAME_NODE: (NETWORK, REGION, ZONE, SUBZONE, HOSTNAME),
}
_SHARES: Final = 1000
"""What one of 100 parts of the traffic is divided into, among localities of one pattern."""


class Client(msgspec.Struct, frozen=True):
    """The properties of a client that decide how near an endpoint is."""

    locality: str = ""
    node: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class Group(msgspec.Struct, frozen=True):
    """Endpoints that are equally near."""

    endpoints: tuple[Endpoint, ...]
    locality: str = ""
    priority: int = 0
    """0 is served first, the next when too few of those before are healthy."""
    weight: int = 0
    """Against other groups of the same priority; 0: each endpoint counts for itself."""


def has_preferences(spec: DestinationRuleSpec | None, service: ServiceRecord) -> bool:
    """Return whether a client's place may matter for any port or subset."""
    return service.prefers is not Preference.ANY or (spec is not None and may_prefer(spec))


def may_prefer(spec: DestinationRuleSpec) -> bool:
    """Return whether a rule's clients may be treated by where they are."""
    return any(
        outliers is not None or (balancer is not None and balancer.nearness is not None)
        for balancer, outliers in _levels(spec)
    )


def compared_labels(spec: DestinationRuleSpec) -> frozenset[str]:
    """Return the labels of clients that a rule compares with those of endpoints."""
    return frozenset(
        key
        for balancer, _ in _levels(spec)
        if balancer and (asked := balancer.nearness)
        for key in asked.failover_priority
        if "=" not in key and key not in {REGION, ZONE, SUBZONE, HOSTNAME}
    )


def _levels(
    spec: DestinationRuleSpec,
) -> Iterator[tuple[LoadBalancerSettings | None, OutlierDetection | None]]:
    for policy in (spec.traffic_policy, *(subset.traffic_policy for subset in spec.subsets)):
        for level in (policy, *policy.port_level_settings) if policy else ():
            yield level.load_balancer, level.outlier_detection


def in_effect(
    balancer: LoadBalancerSettings | None,
    outliers: OutlierDetection | None,
    service: ServiceRecord,
    client: Client | None,
) -> LocalityLbSetting | None:
    """Return the setting by which a client's endpoints are ordered; None: all are alike."""
    if client is None:
        return None
    asked = balancer.nearness if balancer else None
    if asked is not None and asked.enabled is False:
        return None
    if asked is None and service.prefers in _PREFERRED:
        return LocalityLbSetting(failover_priority=_PREFERRED[service.prefers])
    setting = asked or LocalityLbSetting()
    if setting.distribute:
        chosen = any(matches(client.locality, one.from_) for one in setting.distribute)
        return setting if chosen else None
    # A proxy that detects no failing endpoints would never go further than to the nearest.
    comparable = client.locality or setting.failover_priority
    return setting if outliers is not None and comparable else None


def by_nearness(
    endpoints: Iterable[Endpoint], setting: LocalityLbSetting, client: Client
) -> tuple[Group, ...]:
    """Return groups, nearest first, with priorities from 0 without gaps."""
    chosen = next((one for one in setting.distribute if matches(client.locality, one.from_)), None)
    if chosen:
        return tuple(_distributed(endpoints, chosen))
    found: dict[tuple[tuple[int, int], str], list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        found[_distance(endpoint, setting, client), endpoint.locality].append(endpoint)
    ranks = {distance: rank for rank, distance in enumerate(sorted({key[0] for key in found}))}
    return tuple(
        Group(tuple(places), locality, ranks[distance])
        for (distance, locality), places in sorted(found.items(), key=lambda entry: entry[0])
    )


def _distance(endpoint: Endpoint, setting: LocalityLbSetting, client: Client) -> tuple[int, int]:
    """Return the distance: by labels first; by locality where labels, or regions, decide
    nothing."""
    keys = setting.failover_priority
    apart = len(keys) - _matching(endpoint, keys, client) if keys else 0
    if keys and not setting.failover:
        return apart, 0
    steps = 3 - shared(client.locality, endpoint.locality)
    region, there = parts(client.locality)[0], parts(endpoint.locality)[0]
    wanted = next((one.to for one in setting.failover if one.from_ == region), there)
    return apart, 4 if steps == 3 and there != wanted else steps


def _matching(endpoint: Endpoint, keys: tuple[str, ...], client: Client) -> int:
    """Return how many of the first labels are equal, up to the first that differs."""
    own = dict(client.labels)
    region, zone, subzone = parts(client.locality)
    own |= {REGION: region, ZONE: zone, SUBZONE: subzone, HOSTNAME: client.node}
    region, zone, subzone = parts(endpoint.locality)
    theirs = {REGION: region, ZONE: zone, SUBZONE: subzone, HOSTNAME: endpoint.node}
    for number, text in enumerate(keys):
        key, given, value = text.partition("=")
        wanted = value if given else own.get(key, "")
        if wanted != theirs.get(key, endpoint.labels.get(key, "")):
            return number
    return len(keys)


def _distributed(endpoints: Iterable[Endpoint], asked: Distribute) -> Iterator[Group]:
    """Yield each pattern's share, spread over its localities by the weights of their endpoints.

    Endpoints that no pattern covers get nothing.
    """
    found: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        found[endpoint.locality].append(endpoint)
    covered: dict[str, list[str]] = defaultdict(list)
    for locality in sorted(found):
        pattern = next((one for one in asked.to if matches(locality, one)), None)
        if pattern is not None:
            covered[pattern].append(locality)
    for pattern, localities in covered.items():
        sizes = [sum(max(one.weight, 1) for one in found[name]) for name in localities]
        for name, size in zip(localities, sizes, strict=True):
            weight = max(1, asked.to[pattern] * _SHARES * size // sum(sizes))
            yield Group(tuple(found[name]), name, weight=weight)
