"""The workloads of other nodes, as the nodes themselves report them. Pure.

A report stays for a while after its node has disconnected: the node may only be restarting. The
same holds for what is known from before this account began.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from meshd.api import checked
from meshd.base.errors import UNDECODABLE, InvalidInputError
from meshd.base.json_values import Json, value_at
from meshd.model.bounds import Bounds, cover, refusal
from meshd.model.workload import Identity, Workload

_MOST_WORKLOADS: Final = 1000
"""Of one node; Kubernetes recommends at most 110 pods on one, and is run with up to 500."""
_MOST_BYTES: Final = 16 * 1024
"""Of one workload as it is reported, so that all of a node's fit into the server's memory."""
_MOST_COMMAS: Final = 1_000_000
"""In a report, which has one less than elements, and some inside of each."""
_NOTHING: Final[Mapping[str, str]] = {}
_SHOWN: Final = 64
"""Characters of an unusable uid in what is said of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A node's report of its workloads."""

    workloads: tuple[Workload, ...] = ()
    unusable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Why, by uid, of what is no workload."""


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


Noted = Callable[[str], contextlib.AbstractContextManager[None]]
"""Notes the work on a record of this name; raises InvalidInputError if it is left out."""


def decode(message: bytes, noted: Noted | None = None) -> Report:
    """Decode a node's list of workloads in JSON; an invalid one affects no other.

    ``noted``: notes the work on each record by itself. Raises InvalidInputError if it is not a
    list, or too long.
    """
    return decode_each(listed(message), noted)


def listed(message: bytes) -> list[msgspec.Raw]:
    """Return a node's list of workloads, before they are decoded. Raises as ``decode`` does."""
    if message.count(b",") > _MOST_COMMAS:
        raise InvalidInputError("more values than a report of workloads has")
    try:
        found = msgspec.json.decode(message, type=list[msgspec.Raw])
    except UNDECODABLE as error:
        raise InvalidInputError(f"not a list of workloads: {error}") from None
    if len(found) > _MOST_WORKLOADS:
        raise InvalidInputError(f"more than {_MOST_WORKLOADS} workloads on one node")
    return found


def decode_each(listed: Iterable[msgspec.Raw], noted: Noted | None = None) -> Report:
    """Decode a node's workloads, as ``decode`` does."""
    found: dict[str, Workload] = {}
    unusable: dict[str, str] = {}
    for index, raw in enumerate(listed):
        name, problem = f"#{index}", ""
        try:
            if len(bytes(raw)) > _MOST_BYTES:
                problem = f"larger than {_MOST_BYTES} bytes"
            else:
                with noted(_digest(raw)) if noted else contextlib.nullcontext():
                    one = checked.decode(raw, Workload)
                if one.uid in found:
                    name, problem = one.uid, "its uid is used twice"
                else:
                    found[one.uid] = one
        except InvalidInputError as error:
            name, problem = _uid_of(raw, index), str(error)
        if problem:
            unusable[name] = problem
    return Report(tuple(found.values()), unusable)


def _digest(raw: msgspec.Raw) -> str:
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def _uid_of(raw: msgspec.Raw, index: int) -> str:
    """Return the uid of an unusable workload, fit to be shown."""
    try:
        value: Json = msgspec.json.decode(raw)
    except UNDECODABLE:
        return f"#{index}"
    uid = value_at(value, "uid")
    return repr(uid[:_SHOWN])[1:-1] if isinstance(uid, str) and uid else f"#{index}"


def restored(workloads: Iterable[Workload], now: float, own: str = "") -> Rosters:
    """Return the rosters of nodes that are not connected (yet).

    ``own``: the server's, which never connects; its workloads are known without an account, and an
    old one would hide what has changed since.
    """
    found: dict[str, dict[str, Workload]] = {}
    for workload in workloads:
        if workload.node != own:
            found.setdefault(workload.node, {})[workload.uid] = workload
    return {node: Roster(ones, 0, now) for node, ones in found.items()}


def connected(rosters: Rosters, node: str, now: float, bounds: Bounds = ()) -> Rosters:
    """Return the rosters with a connected node, which may have two connections for a moment."""
    before = rosters.get(node, Roster({}, 0, now))
    since = before.since if before.connections else now
    after = Roster({}, before.connections + 1, since, bounds)
    return {**rosters, node: _within(after, node, before.workloads)}


def told(
    rosters: Rosters,
    node: str,
    workloads: Iterable[Workload],
    unusable: Mapping[str, str] = _NOTHING,
) -> Rosters:
    """Return the rosters with all workloads of a connected node but those that it may not have."""
    found = {one.uid: _owned(one, node) for one in workloads}
    within = _within(rosters[node], node, found)
    refused = {**unusable, **within.refused}
    return {**rosters, node: dataclasses.replace(within, refused=refused)}


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
    """Return the workload as this node's, without paths, which mean nothing elsewhere."""
    return msgspec.structs.replace(workload, node=node, netns="", netns_cookie=0)


def disconnected(rosters: Rosters, node: str, now: float) -> Rosters:
    before = rosters[node]
    left = before.connections - 1
    since = before.since if left else now
    return {**rosters, node: dataclasses.replace(before, connections=left, since=since)}


def expired(rosters: Rosters, now: float, grace: float) -> Rosters:
    """Return the rosters without nodes that have been away for longer than ``grace`` seconds."""
    kept = {
        node: roster
        for node, roster in rosters.items()
        if roster.connections or now < roster.since + grace
    }
    return kept if len(kept) < len(rosters) else rosters


def next_expiry(rosters: Rosters, grace: float) -> float | None:
    """Return when ``expired`` may have something to do."""
    return min((one.since + grace for one in rosters.values() if not one.connections), default=None)


def workloads_of(rosters: Rosters) -> tuple[Workload, ...]:
    """Return all workloads, always in the same order."""
    return tuple(
        workload
        for _, roster in sorted(rosters.items())
        for _, workload in sorted(roster.workloads.items())
    )


def identities_of(rosters: Rosters, node: str, trust_domain: str) -> frozenset[Identity]:
    """Return the identities for which a node may request certificates."""
    roster = rosters.get(node)
    return frozenset(
        Identity(trust_domain, one.namespace, one.service_account)
        for one in (roster.workloads.values() if roster else ())
    )
