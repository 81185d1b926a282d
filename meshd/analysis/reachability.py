"""Finds routes and matches that no request or connection reaches, since an earlier one takes it.

It reads the conditions that the plan has (``matching``), and knows no client: a match is reported
only if nothing reaches it from anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from meshd.analysis.world import World
from meshd.api.base import Object
from meshd.api.checks import is_network
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.read import Read
from meshd.api.virtual_service.delegation import (
    delegate_key,
    merge_route,
    why_not,
    with_full_gateways,
)
from meshd.api.virtual_service.types import (
    HTTPMatchRequest,
    HTTPRoute,
    L4MatchAttributes,
    TLSMatchAttributes,
    VirtualService,
)
from meshd.matching.conditions import RouteMatch
from meshd.matching.connections import EarlierRules
from meshd.matching.covering import is_unconditional
from meshd.matching.earlier import Earlier
from meshd.matching.entrances import Entrances, bound_gateways, entrances_of
from meshd.matching.reading import route_match

Said = Iterator[tuple[Path, str]]
_ALWAYS: Final = L4MatchAttributes()


class _Written(NamedTuple):
    """A match of a route, or a route without one, and where it is written."""

    protocol: str
    route: int
    """The index of the root's route, where a delegate's is inserted."""
    match: int | None
    delegates: str = ""
    """The inserted part: a field of a delegate, with its key."""

    @property
    def path(self) -> Path:
        whole: Path = ("spec", self.protocol, self.route)
        if self.delegates:
            return (*whole, "delegate")
        return whole if self.match is None else (*whole, "match", self.match)

    def __str__(self) -> str:
        if self.delegates:
            return self.delegates
        route = f"{self.protocol}[{self.route}]"
        return route if self.match is None else f"{route}.match[{self.match}]"

    @property
    def whole(self) -> str:
        """Return the name of the route without its match."""
        return self.delegates or f"{self.protocol}[{self.route}]"

    def told(self, before: _Written, what: str, *, same: bool) -> str:
        """Return what to report where ``before`` takes all that this asks for."""
        subject = f"{self.delegates} " if self.delegates else ""
        if same:
            return f"{subject}has no effect: {before} is the same"
        return f"{subject}has no effect: {before} takes all its {what}; put that one later"


def check_reachable(reads: Collection[Read], domain: str = "cluster.local") -> Iterator[Finding]:
    """Yield warnings about what is never reached in these objects, which are in force together."""
    world = World({read.object.key: read.object for read in reads}, domain)
    for read in reads:
        for path, message in unreached(read.object, world):
            yield read.finding(path, message, "warning")


def unreached(found: Object, world: World) -> Said:
    """Return warnings about what is never reached in a VirtualService."""
    if isinstance(found, VirtualService):
        yield from _of_requests(found, world)
        yield from _of_connections(found)


def _of_requests(found: VirtualService, world: World) -> Said:
    bound, namespace = bound_gateways(found), found.metadata.namespace
    everywhere = Entrances(gateways=bound)
    earlier = Earlier[_Written]()
    asked: dict[_Written, tuple[RouteMatch, Entrances]] = {}
    last: _Written | None = None
    for written, match in _written(found, world):
        if last is not None and last.route != written.route:
            path: Path = ("spec", "http", written.route)
            yield path, f"is never reached: {last.whole} takes every request; put that one last"
            return
        wanted = route_match(match), entrances_of(match, namespace, bound) if match else everywhere
        before = earlier.add(wanted[0], written, wanted[1])
        if before is not None and not (before.delegates and before.route == written.route):
            yield written.path, written.told(before, "requests", same=asked[before] == wanted)
        asked[written] = wanted
        if last is None and is_unconditional(wanted[0]) and wanted[1].covers(everywhere):
            last = written


def _written(
    found: VirtualService, world: World
) -> Iterator[tuple[_Written, HTTPMatchRequest | None]]:
    """Yield the matches of requests in their order, with the delegates' at their roots' places.

    None stands for all requests. What asks for a claim of a token holds for none.
    """
    for index, route in enumerate(found.spec.http):
        if route.delegate is not None:
            yield from _inserted(found, index, route, world)
            continue
        for number, match in _matches(route):
            yield _Written("http", index, number), match


def _inserted(
    root: VirtualService, index: int, route: HTTPRoute, world: World
) -> Iterator[tuple[_Written, HTTPMatchRequest | None]]:
    """Yield what a root has of a delegate."""
    assert route.delegate is not None  # noqa: S101  (only such routes come here)
    namespace = root.metadata.namespace
    key = delegate_key(route.delegate, namespace)
    delegate = world.objects.get(key)
    if why_not(delegate, key, namespace) or not isinstance(delegate, VirtualService):
        return
    wide = _qualified(route, namespace)
    for place, narrow in enumerate(delegate.spec.http):
        merged = merge_route(wide, _qualified(narrow, key.namespace))
        for number, match in _matches(merged) if merged and not narrow.delegate else ():
            which = "" if number is None else f".match[{number}]"
            yield _Written("http", index, number, f"http[{place}]{which} of {key}"), match


def _qualified(route: HTTPRoute, owner: str) -> HTTPRoute:
    return msgspec.structs.replace(
        route, match=tuple(with_full_gateways(match, owner) for match in route.match)
    )


def _matches(route: HTTPRoute) -> Iterator[tuple[int | None, HTTPMatchRequest | None]]:
    if not route.match:
        yield None, None
    yield from enumerate(route.match)


def _of_connections(found: VirtualService) -> Said:
    bound, namespace = bound_gateways(found), found.metadata.namespace
    for protocol, routes in (("tls", found.spec.tls), ("tcp", found.spec.tcp)):
        earlier = EarlierRules[_Written]()
        asked: dict[_Written, TLSMatchAttributes | L4MatchAttributes] = {}
        for index, route in enumerate(routes):
            for number, match in enumerate(route.match or (_ALWAYS,)):
                written = _Written(protocol, index, number if route.match else None)
                if not all(map(is_network, match.destination_subnets)):
                    continue
                before = earlier.add(match, written, entrances_of(match, namespace, bound))
                if before is not None:
                    same = asked[before] == match
                    yield written.path, written.told(before, "connections", same=same)
                asked[written] = match
