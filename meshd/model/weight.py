"""How much of the proxies' configuration objects make together, before any of it is made. Pure.

A VirtualService's routes are made again for each host and port, and a DestinationRule's subsets for
each port: two small objects may make much together. An object that makes too much of what its own
namespace declares is too large. What other namespaces declare makes no object too large, so that
nobody can have somebody else's object refused or closed: what does not fit of theirs is left out
for this object, and the rest stays in force.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from meshd.api.base import Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.gateway.types import MESH, Server, gateway_name
from meshd.api.hosts import HostIndex, covers
from meshd.api.virtual_service.types import HTTPRoute, TCPRoute, TLSRoute, VirtualService
from meshd.model.excess import (
    MOST_ROUTED,
    MOST_SUBSETS,
    MOST_SUBSETS_OF_MANY,
    NOTHING,
    Excess,
)


class Weighed(msgspec.Struct, frozen=True, order=True):
    """A service, as far as it adds to the weight of objects."""

    namespace: str
    host: str
    ports: tuple[int, ...]
    """Those other than UDP's, in order."""


class Around(Protocol):
    """The objects on which the weight of an object depends."""

    def full(self, host: str, owner: Object, /) -> str:
        """Return the full name for what the object calls a host."""
        ...

    def services(self, host: str, /) -> Iterable[Weighed]:
        """Return all services, of all namespaces, that a host or wildcard stands for."""
        ...

    def servers(self, namespace: str, name: str, /) -> Sequence[Server]:
        """Return the servers of a Gateway, none if it is not there."""
        ...

    def delegate(self, namespace: str, name: str, /) -> VirtualService | None:
        """Return a VirtualService to which others may leave requests."""
        ...


def values(part: object) -> int:
    """Return how many values are set in a part of an object, lists and mappings included."""
    if isinstance(part, msgspec.Struct):
        return 1 + sum(values(getattr(part, name)) for name in part.__struct_fields__)
    if isinstance(part, dict):
        return bool(part) + sum(map(values, part.values()))
    if isinstance(part, tuple):
        return bool(part) + sum(map(values, part))
    return part is not None


def weigh(found: Object, around: Around) -> Excess:
    """Return what does not fit of an object."""
    if isinstance(found, DestinationRule) and found.spec.subsets:
        return _subsets(found, around)
    if isinstance(found, VirtualService):
        return _routes(found, around)
    return NOTHING


_Key = tuple[str, str]
"""Namespace and name."""


class _Entrances:
    """The places for which a VirtualService's routes are made: its hosts at ports of services and
    at Gateways. A delegate that is weighed by itself has one."""

    def __init__(self, found: VirtualService, around: Around) -> None:
        self.own = 0
        self.others: dict[str, set[tuple[int, str, int]]] = defaultdict(set)
        """By namespace: how many ports the service has, its host and the port."""
        self.gateways: dict[str, dict[str, int]] = defaultdict(dict)
        """By namespace: how many hosts of each Gateway."""
        namespace = found.metadata.namespace
        hosts = HostIndex(_at_gateways(found, around))
        for name in found.spec.gateways or (MESH,):
            if name == MESH:
                for host in found.spec.hosts:
                    self._add_host(around.services(around.full(host, found)), namespace)
                continue
            gateway = gateway_name(name, namespace)
            owner, _, short = gateway.partition("/")
            count = gateway_entrances(around.servers(owner, short), hosts)
            if owner == namespace:
                self.own += count
            else:
                self.gateways[owner][gateway] = count
        self.own = max(1, self.own)

    def _add_host(self, services: Iterable[Weighed], namespace: str) -> None:
        own = 0
        for one in services:
            if one.namespace == namespace:
                own += len(one.ports)
            else:
                places = ((len(one.ports), one.host, port) for port in one.ports)
                self.others[one.namespace].update(places)
        self.own += own or 1


def _at_gateways(found: VirtualService, around: Around) -> Iterator[str]:
    """Yield the names by which clients of gateways ask for its hosts: those of services, and those
    that are written."""
    for host in found.spec.hosts:
        yield around.full(host, found)
        if "." in host:
            yield host.lower()


def gateway_entrances(servers: Sequence[Server], hosts: HostIndex) -> int:
    """Return how many of the hosts each server has, added up over the servers; counting ends above
    ``MOST_ROUTED``."""
    entrances = 0
    for server in servers:
        names = {name.rpartition("/")[2].lower() for name in server.hosts}
        # Of two that overlap, the narrower is served.
        served = (
            name if covers(host, name) else host
            for name in names
            for host in hosts.overlapping(name)
        )
        entrances += len(set(served))
        if entrances > MOST_ROUTED:
            break
    return entrances


class Weight(msgspec.Struct, frozen=True):
    """The weight of several routes together."""

    matches: int = 0
    """How many; a route without a match counts as one."""
    matched: int = 0
    """Values in the matches."""
    done: int = 0
    """Values in the actions, once for each match."""

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


def _routes(found: VirtualService, around: Around) -> Excess:
    """Return what does not fit of a VirtualService's routes.

    Each other namespace has as much room as the object's own, and services with few ports come
    first.
    """
    entrances = _Entrances(found, around)
    own, others = _delegated(found, around)
    if (weight := own.values * entrances.own) > MOST_ROUTED:
        return Excess(
            f"its routes for {entrances.own} hosts and ports come to {weight} values, and at most"
            f" {MOST_ROUTED} are taken; split it, or name fewer hosts, routes or matches"
        )
    total, delegates = own, set[_Key]()
    for of_namespace in others.values():
        left = MOST_ROUTED // entrances.own - own.values
        for key, delegate in of_namespace:
            if delegate.values > left:
                delegates.add(key)
            else:
                left -= delegate.values
                total += delegate
    room = max(1, MOST_ROUTED // max(1, total.values))
    ports = frozenset(
        (namespace, host, port)
        for namespace, places in entrances.others.items()
        for _, host, port in sorted(places)[room:]
    )
    gateways = set[str]()
    for of_namespace in entrances.gateways.values():
        left = room
        for gateway, count in of_namespace.items():
            if count > left:
                gateways.add(gateway)
            else:
                left -= count
    if ports or gateways or delegates:
        return Excess("", ports, frozenset(gateways), frozenset(delegates))
    return NOTHING


def _delegated(
    found: VirtualService, around: Around
) -> tuple[Weight, dict[str, list[tuple[_Key, Weight]]]]:
    """Return the weight of the routes for one host on one port without those of delegates in other
    namespaces, and the weights of these delegates by namespace."""
    namespace = found.metadata.namespace
    own, delegates = _NOTHING, dict[_Key, Weight]()
    others: dict[str, dict[_Key, Weight]] = defaultdict(dict)
    for route in (*found.spec.http, *found.spec.tls, *found.spec.tcp):
        weight = _weight(route)
        if not isinstance(route, HTTPRoute) or not (named := route.delegate):
            own += weight
            continue
        key = (named.namespace or namespace, named.name)
        if key not in delegates:
            narrow = around.delegate(*key)
            delegates[key] = sum(map(_weight, narrow.spec.http) if narrow else (), _NOTHING)
        inserted = delegates[key].under(weight)
        if key[0] == namespace:
            own += inserted
        else:
            others[key[0]][key] = others[key[0]].get(key, _NOTHING) + inserted
    return own, {owner: list(known.items()) for owner, known in others.items()}


def _subsets(found: DestinationRule, around: Around) -> Excess:
    """Return what does not fit of a DestinationRule's subsets.

    Each other namespace has room for as many clusters as the object's own, and services with few
    ports come first.
    """
    host, subsets = around.full(found.spec.host, found), len(found.spec.subsets)
    anything = host.startswith("*")
    if anything and subsets <= MOST_SUBSETS_OF_MANY:
        return NOTHING
    ports: dict[str, Counter[str]] = defaultdict(Counter)
    for one in around.services(host):
        ports[one.namespace][one.host] += len(one.ports)
    own = ports.pop(found.metadata.namespace, Counter()).total()
    if own * subsets > MOST_SUBSETS:
        return Excess(_too_many_subsets(subsets, own, anything=anything))
    left_out = set[tuple[str, str]]()
    for namespace, of_namespace in ports.items():
        left = MOST_SUBSETS // subsets
        for name, count in sorted(of_namespace.items(), key=lambda one: (one[1], one[0])):
            if count > left:
                left_out.add((namespace, name))
            else:
                left -= count
    return Excess(services=frozenset(left_out)) if left_out else NOTHING


def _too_many_subsets(subsets: int, ports: int, *, anything: bool) -> str:
    most = f"at most {MOST_SUBSETS} are taken"
    if anything:
        most += f", or {MOST_SUBSETS_OF_MANY} subsets of any number of services"
    return (
        f"its {subsets} subsets of services with {ports} ports come to {ports * subsets} clusters,"
        f" and {most}; name fewer subsets, or split the service"
    )
