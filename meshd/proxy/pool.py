"""A pool's plan: from the members that are wanted, those to start and those to let go. Pure.

A member has a slot (0 … count-1) and a generation. It is replaced by a member of another generation
in the same slot, which must have all that the old one has before the old one is let go. Members are
replaced one at a time.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Final

from meshd.model.pool import Pool

_NAME: Final = re.compile(rf"({'|'.join(Pool)})-(\d{{1,4}})(?:\.(\d{{1,4}}))?")
_MOST_FOR_DNS: Final = 2
"""One answers more queries than a node has; the second is there when the first dies."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Member:
    pool: Pool
    slot: int
    generation: int = 0

    @property
    def name(self) -> str:
        return f"{self.pool}-{self.slot}" + (f".{self.generation}" if self.generation else "")

    @classmethod
    def parse(cls, name: str) -> Member | None:
        found = _NAME.fullmatch(name)
        return cls(Pool(found[1]), int(found[2]), int(found[3] or 0)) if found else None


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A member that was started and is not gone."""

    member: Member
    live: bool = False
    listeners: int = 0
    """Listeners that are open and do not wait for anything."""
    leaving: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    start: tuple[Member, ...] = ()
    stop: tuple[Member, ...] = ()


def size(pool: Pool, count: int) -> int:
    """Return the number of members of a pool when ``count`` proxies are asked for."""
    return count if pool is Pool.TRAFFIC else min(count, _MOST_FOR_DNS)


def plan(
    pool: Pool, count: int, running: Collection[Running], outdated: Collection[Member] = ()
) -> Plan:
    """Return the next steps for one pool; ``outdated`` members are to be replaced."""
    staying = [one for one in running if not one.leaving]
    stop = [one.member for one in staying if one.member.slot >= count]
    by_slot = {
        slot: [one for one in staying if one.member.slot == slot] for slot in range(max(count, 0))
    }
    start = [
        Member(pool, slot, free_generation(slot, running))
        for slot, members in by_slot.items()
        if not members
    ]
    in_transition = bool(start) or any(one.leaving for one in running)
    for members in by_slot.values():
        old = [one for one in members if one.member in outdated]
        new = [one for one in members if one.member not in outdated]
        if len(members) > 1:
            in_transition = True
            if old and any(_takes_over(one, old) for one in new):
                stop += [one.member for one in old]
    if not in_transition:
        waiting = sorted(one.member for one in staying if one.member in outdated)
        start += [
            Member(pool, member.slot, free_generation(member.slot, running))
            for member in waiting[:1]
        ]
    return Plan(tuple(start), tuple(stop))


def superseded(oldest_first: Iterable[Member]) -> set[Member]:
    """Return, of members that share a slot, all but the newest."""
    members = tuple(oldest_first)
    newest = {member.slot: member for member in members}
    return set(members) - set(newest.values())


def free_generation(slot: int, running: Iterable[Running]) -> int:
    """Return the lowest generation that is not in use, so that names stay few."""
    used = {one.member.generation for one in running if one.member.slot == slot}
    return next(number for number in range(len(used) + 1) if number not in used)


def _takes_over(new: Running, old: Iterable[Running]) -> bool:
    """Return whether the new member serves all that the old ones serve; one that is not live serves
    nothing."""
    return new.live and all(new.listeners >= one.listeners for one in old if one.live)
