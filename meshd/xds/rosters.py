"""Which workloads run on which other node, as the nodes themselves tell. Pure.

What a node told stays for a while after it has hung up: it may only be restarting. The same holds
for what is known from before this account began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import msgspec

from meshd.errors import InvalidInputError
from meshd.model.bounds import Bounds, cover, refusal
from meshd.model.workload import Identity, Workload

_MOST_WORKLOADS = 5000
"""Of one node."""


@dataclasses.dataclass(frozen=True, slots=True)
class Roster:
    workloads: Mapping[str, Workload]
    """By the uid that they have on their node."""
    connections: int
    since: float
    """When ``connections`` became what it is, on the clock that the caller uses."""
    bounds: Bounds = ()
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Workloads that it told of and may not have: why, by uid."""


Rosters = Mapping[str, Roster]
"""By node."""


def restored(workloads: Iterable[Workload], now: float, own: str = "") -> Rosters:
    """Of nodes that are not connected (yet). ``own``: the server's, which never connects; what it
    runs is known without an account of it, and an old one would hide what has changed since."""
    found: dict[str, dict[str, Workload]] = {}
    for workload in workloads:
        if workload.node != own:
            found.setdefault(workload.node, {})[workload.uid] = workload
    return {node: Roster(ones, 0, now) for node, ones in found.items()}


def connected(rosters: Rosters, node: str, now: float, bounds: Bounds = ()) -> Rosters:
    """A node may hold two connections for a moment, when it comes back before the old one broke."""
    before = rosters.get(node, Roster({}, 0, now))
    since = before.since if before.connections else now
    after = Roster({}, before.connections + 1, since, bounds)
    return {**rosters, node: _within(after, node, before.workloads)}


def told(rosters: Rosters, node: str, workloads: Iterable[Workload]) -> Rosters:
    """The whole of what runs on a node that is connected; what it may not have is left out.

    Raises InvalidInputError.
    """
    found = {one.uid: _owned(one, node) for one in workloads}
    if len(found) > _MOST_WORKLOADS:
        raise InvalidInputError(f"node {node} has more than {_MOST_WORKLOADS} workloads")
    return {**rosters, node: _within(rosters[node], node, found)}


def _within(roster: Roster, node: str, workloads: Mapping[str, Workload]) -> Roster:
    bounds = roster.bounds
    refused = {
        uid: refusal(node, bounds, one.namespace, one.service_account)
        for uid, one in workloads.items()
        if not cover(bounds, one.namespace, one.service_account)
    }
    kept = {uid: one for uid, one in workloads.items() if uid not in refused}
    return dataclasses.replace(roster, workloads=kept, refused=refused)


def removed(rosters: Rosters, node: str) -> Rosters:
    return {name: roster for name, roster in rosters.items() if name != node}


def _owned(workload: Workload, node: str) -> Workload:
    """Where it runs is not for the node to say, and paths on it mean nothing elsewhere."""
    return msgspec.structs.replace(workload, node=node, netns="")


def disconnected(rosters: Rosters, node: str, now: float) -> Rosters:
    before = rosters[node]
    left = before.connections - 1
    since = before.since if left else now
    return {**rosters, node: dataclasses.replace(before, connections=left, since=since)}


def expired(rosters: Rosters, now: float, grace: float) -> Rosters:
    """Without the nodes that have been away for longer than ``grace`` seconds."""
    kept = {
        node: roster
        for node, roster in rosters.items()
        if roster.connections or now < roster.since + grace
    }
    return kept if len(kept) < len(rosters) else rosters


def next_expiry(rosters: Rosters, grace: float) -> float | None:
    """When ``expired`` may have something to do."""
    return min((one.since + grace for one in rosters.values() if not one.connections), default=None)


def workloads_of(rosters: Rosters) -> tuple[Workload, ...]:
    """All of them, always in the same order."""
    return tuple(
        workload
        for _, roster in sorted(rosters.items())
        for _, workload in sorted(roster.workloads.items())
    )


def identities_of(rosters: Rosters, node: str, trust_domain: str) -> frozenset[Identity]:
    """Whom a node may ask certificates for."""
    roster = rosters.get(node)
    return frozenset(
        Identity(trust_domain, one.namespace, one.service_account)
        for one in (roster.workloads.values() if roster else ())
    )
