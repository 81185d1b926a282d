"""How much of proxies' configuration objects make together, told before any of it is made. Pure.

A VirtualService's routes are there again for each host and port, and a DestinationRule's subsets
for each port; each of two objects may be small where both together are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from meshd.api.checks import covers
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import Server
from meshd.api.virtual_service.types import HTTPRoute, TCPRoute, TLSRoute, VirtualService

MOST_ROUTED: Final = 65_536
"""Values in all routes that one VirtualService makes."""
MOST_SUBSETS: Final = 1024
"""Clusters that the subsets of one DestinationRule make."""

_MOST_COMPARED: Final = 100_000
"""Pairs of hosts; for more each host counts at each server."""

Delegate = Callable[[HTTPRoute], VirtualService | None]
"""The VirtualService to which a route leaves the rest, if there is one."""


def values(part: Any) -> int:
    """Return how many values are set in a part of an object, lists and mappings included."""
    if isinstance(part, msgspec.Struct):
        return 1 + sum(values(getattr(part, name)) for name in part.__struct_fields__)
    if isinstance(part, dict):
        return bool(part) + sum(map(values, part.values()))
    if isinstance(part, tuple):
        return bool(part) + sum(map(values, part))
    return part is not None


def gateway_entrances(servers: Sequence[Server], hosts: Sequence[str]) -> int:
    """Return how many of a VirtualService's hosts each server has, all servers together."""
    if sum(len(server.hosts) for server in servers) * len(hosts) > _MOST_COMPARED:
        return len(servers) * len(hosts)
    return sum(_has(server, host) for server in servers for host in hosts)


def _has(server: Server, host: str) -> bool:
    names = (name.rpartition("/")[2] for name in server.hosts)
    return any(covers(name, host) or covers(host, name) for name in names)


class Weight(msgspec.Struct, frozen=True):
    """Of routes together."""

    matches: int = 0
    """A route without any is for everything, which counts as one."""
    matched: int = 0
    """Values in all of them."""
    done: int = 0
    """Values in what is done, once for each match."""

    def __add__(self, other: Weight) -> Weight:
        return Weight(
            self.matches + other.matches, self.matched + other.matched, self.done + other.done
        )

    def under(self, root: Weight) -> Weight:
        """Return a delegate's weight: each of its matches goes with each of the root's."""
        return Weight(
            self.matches * root.matches,
            self.matched * root.matches + root.matched * self.matches,
            self.done * root.matches + root.done * self.matches,
        )

    @property
    def values(self) -> int:
        return self.matched + self.done


_NOTHING: Final = Weight()


def _weight(route: HTTPRoute | TLSRoute | TCPRoute) -> Weight:
    matches, matched = max(1, len(route.match)), values(route.match)
    return Weight(matches, matched, matches * (values(route) - matched))


def routed(found: VirtualService, delegate: Delegate) -> int:
    """Values in all routes of one host on one port."""
    routes = (*found.spec.http, *found.spec.tls, *found.spec.tcp)
    total, delegates = _NOTHING, dict[tuple[str, str], Weight]()
    for route in routes:
        weight = _weight(route)
        if isinstance(route, HTTPRoute) and (named := route.delegate):
            key = (named.namespace, named.name)
            if key not in delegates:
                narrow = delegate(route)
                own = map(_weight, narrow.spec.http) if narrow else ()
                delegates[key] = sum(own, _NOTHING)
            weight = delegates[key].under(weight)
        total += weight
    return total.values


def too_many_routes(found: VirtualService, entrances: int, delegate: Delegate) -> str:
    """Return why a VirtualService is too much for proxies; empty if it is not."""
    weight = routed(found, delegate) * entrances
    if weight <= MOST_ROUTED:
        return ""
    return (
        f"its routes for {entrances} hosts and ports come to {weight} values, and at most"
        f" {MOST_ROUTED} are taken; split it, or name fewer hosts, routes or matches"
    )


def too_many_subsets(found: DestinationRule, ports: int) -> str:
    """Return why a DestinationRule is too much; ``ports``: of all services that it is about."""
    clusters = ports * len(found.spec.subsets)
    if clusters <= MOST_SUBSETS:
        return ""
    return (
        f"its {len(found.spec.subsets)} subsets of services with {ports} ports come to {clusters}"
        f" clusters, and at most {MOST_SUBSETS} are taken; name fewer subsets, or split the service"
    )
