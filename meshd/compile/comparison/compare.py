"""Tells what differs between two plans; what is the same for several clients is told once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from meshd.compile.comparison.facts import Facts, facts, targets
from meshd.compile.comparison.parts import Client, HostRoutes, Part, Parts, Planned
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import Forward, Route
from meshd.compile.plan.upstreams import Upstream
from meshd.wire import Detail

_NOTHING: Final[Parts] = {}
_OBJECT: Final = "object"
"""The fact that says which object decides; that one decides at all is said by the origin."""


_SET_BY: Final = {
    "settings balancing": "loadBalancer",
    "settings by locality": "loadBalancer",
    "settings ejection": "outlierDetection",
    "settings": "connectionPool",
    "settings limits": "retryBudget",
    "discovery": "loadBalancer",
    "tls": "tls",
    "proxy protocol": "proxyProtocol",
}
"""Beginnings of the names of an upstream's facts, with the part of a traffic policy that may set
them."""


class Difference(msgspec.Struct, frozen=True):
    """A part that appears, goes, or changes."""

    change: str
    """added, removed or changed."""
    kind: str
    name: str
    details: tuple[Detail, ...] = ()
    origin: Origin | None = None
    """In the configuration after the change, but for what is removed."""


def compare(before: Planned, after: Planned) -> dict[Difference, tuple[Client, ...]]:
    """Return the differences, each with the clients for which it is one."""
    found: dict[Difference, list[Client]] = defaultdict(list)
    for client in sorted({*before.parts, *after.parts}):
        was, becomes = before.parts.get(client), after.parts.get(client)
        if was is becomes:
            continue
        for difference in _between(was or _NOTHING, becomes or _NOTHING):
            found[difference].append(client)
    return {difference: tuple(clients) for difference, clients in found.items()}


def _between(before: Parts, after: Parts) -> Iterator[Difference]:
    for key in dict.fromkeys((*after, *before)):
        was, becomes = before.get(key), after.get(key)
        if was is not None and becomes is not None:
            yield from _changed(was, becomes)
        elif becomes is not None and not _is_told_elsewhere(becomes, before, after):
            details = _of_endpoints(becomes, after)
            yield Difference("added", *key, details, becomes.origin)
        elif was is not None and not _is_told_elsewhere(was, after, before):
            yield Difference("removed", *key, (), was.origin)


def _is_told_elsewhere(part: Part, without: Parts, with_: Parts) -> bool:
    """Return whether another part comes or goes of which this one is a matter of course."""
    if part.kind == "endpoints":
        return ("upstream", part.name) in with_.keys() - without.keys()
    if part.kind == "host":
        routes = (key for key in with_.keys() - without.keys() if key[0] == "route")
        names = (name for _, name in routes if name.partition(", ")[0] == part.name)
        return any(with_["route", name].origin for name in names)
    if part.kind == "route" and part.origin is None:
        host = ("host", part.name.partition(", ")[0])
        return host in with_ and host not in without
    return False


def _of_endpoints(part: Part, after: Parts) -> tuple[Detail, ...]:
    """Return how many endpoints a new upstream has: none may be a mistake."""
    endpoints = after.get(("endpoints", part.name)) if part.kind == "upstream" else None
    if endpoints is None or not isinstance(endpoints.value, tuple):
        return ()
    return (Detail("endpoints", "", str(len(endpoints.value)) if endpoints.value else "none"),)


def _changed(was: Part, becomes: Part) -> Iterator[Difference]:
    if was.value == becomes.value:
        return
    details = _details(was.value, becomes.value)
    if was.kind == "certificate":
        details = (Detail("content", "", "another"),)
    if details:
        origin = becomes.origin
        if isinstance(was.value, Route) and isinstance(becomes.value, Route):
            origin = _of_one_target(details, becomes.value) or origin or was.origin
        if isinstance(was.value, Upstream) and isinstance(becomes.value, Upstream):
            origin = _of_setting(details, was.value, becomes.value) or origin
        yield Difference("changed", *becomes.key, details, origin or was.origin)


def _details(was: object, becomes: object) -> tuple[Detail, ...]:
    if isinstance(was, HostRoutes) and isinstance(becomes, HostRoutes):
        # Routes that come and go are told as such: the order is that of the same routes.
        if_moved = becomes.order if sorted(was.order) == sorted(becomes.order) else was.order
        becomes = msgspec.structs.replace(becomes, order=if_moved)
    if isinstance(was, tuple) and isinstance(becomes, tuple):
        return tuple(_of_places(was, becomes))
    before, after = _named(facts(was)), _named(facts(becomes))
    return tuple(
        Detail(name, before.get(name, ""), after.get(name, ""))
        for name in dict.fromkeys((*before, *after))
        if before.get(name, "") != after.get(name, "") and (name != _OBJECT or before.get(name))
    )


def _of_places(was: tuple[object, ...], becomes: tuple[object, ...]) -> Iterator[Detail]:
    yield from (Detail(f"endpoint {one}", "", "added") for one in becomes if one not in was)
    yield from (Detail(f"endpoint {one}", "present", "") for one in was if one not in becomes)


def _named(found: Facts) -> Facts:
    """Return facts; a value that is its only fact has no name."""
    return {name or "value": text for name, text in found.items()}


def _of_setting(details: tuple[Detail, ...], was: Upstream, becomes: Upstream) -> Origin | None:
    """Return the field that sets or has set what changes; of several, the first of the object."""
    parts = dict.fromkeys(
        part
        for detail in details
        for beginning, part in _SET_BY.items()
        if detail.fact.startswith(beginning)
    )
    now = (becomes.origin_of(part) for part in parts)
    before = (was.origin_of(part) for part in parts)
    return next(filter(None, (*now, *before)), None)


def _of_one_target(details: tuple[Detail, ...], route: Route) -> Origin | None:
    """Return the field of the last target whose weight is another one, if nothing else changes."""
    names = {detail.fact for detail in details}
    origin, action = route.origin, route.action
    if origin is None or not isinstance(action, Forward):
        return None
    if not all(name.startswith("weight of ") for name in names):
        return None
    field = origin.field.partition(".match[")[0]
    changed = [one for one, label in targets(action) if f"weight of {label}" in names]
    return Origin(origin.key, f"{field}.route[{changed[-1].index}]") if changed else None
