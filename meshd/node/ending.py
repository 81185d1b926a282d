"""Ends connections that are open when a policy comes that denies them.

Requests are judged one by one, and new connections when they come; what is open and not HTTP would
stay. So when the rules about a workload have changed and the proxies have them, its connections are
judged here, and the capture role ends those that are denied now. All others stay.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from meshd import wire
from meshd.base.errors import MeshdError, SystemRefusedError, UnreachableError
from meshd.base.once import SaidOnce
from meshd.base.threads import in_thread
from meshd.compile.explain.denied import Change, Rules, denied, peers
from meshd.compile.policy.authorization import authorization, policies_of
from meshd.model.open_connection import OpenConnection
from meshd.model.snapshot import Snapshot
from meshd.model.workload import shown
from meshd.node.closing import Entrances
from meshd.node.mesh import Mesh
from meshd.wire import channel

_SHARE: Final = 0.4
"""The part of the time that passes until connections are judged, and again until they are judged a
second time: one may have come just before its proxy knew the rules."""
_PASSES: Final = 2
_TIMEOUT: Final = 10.0
"""Seconds for an answer of the capture role."""
_A = TypeVar("_A", wire.OpenConnections, wire.Ended)
_log: Final = logging.getLogger(__name__)


class Connections:
    """The connections to workloads, by way of the capture role."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def of(self, uid: str) -> tuple[OpenConnection, ...]:
        """Raises SystemRefusedError, UnreachableError."""
        found = await self._ask(wire.ListConnections(uid), wire.OpenConnections)
        return found.connections

    async def end(self, uid: str, those: tuple[OpenConnection, ...]) -> int:
        """Raises SystemRefusedError, UnreachableError."""
        return (await self._ask(wire.EndConnections(uid, those), wire.Ended)).count

    async def _ask(self, request: wire.ConnectionRequest, expected: type[_A]) -> _A:
        """Return the answer, before which others may come: each peer is told what capture sees."""
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                await channel.connect(self._socket) as connection,
            ):
                await connection.send(request)
                while (answer := await connection.receive()) is not None:
                    if isinstance(answer, expected):
                        return answer
                    if isinstance(answer, wire.Failed):
                        raise SystemRefusedError(answer.reason)
        except TimeoutError:
            pass
        raise UnreachableError(f"the capture role did not answer within {_TIMEOUT:g} s")


class Ruled:
    """The rules about workloads as they are published, and what has changed of them."""

    def __init__(self) -> None:
        self._seen: tuple[Snapshot, Entrances] | None = None
        self._rules: Mapping[str, Rules] | None = None
        """By uid; None: nothing was published yet."""
        self.changes: dict[str, Change] = {}
        """By uid, of those whose connections are to be judged."""
        self._left: dict[str, int] = {}

    def is_new(self, snapshot: Snapshot, entrances: Entrances) -> bool:
        seen = self._seen
        return seen is None or seen[0] is not snapshot or seen[1] is not entrances

    def take(self, snapshot: Snapshot, entrances: Entrances, rules: Mapping[str, Rules]) -> None:
        """Take what is published. Connections of before this role began are not judged: their rules
        are not known."""
        self._seen = snapshot, entrances
        before, self._rules = self._rules, rules
        for uid, now in rules.items():
            if before is not None and uid in before and before[uid] != now:
                known = self.changes.get(uid)
                past = (*(known.before if known else ()), before[uid])
                workload, ports = snapshot.workloads[uid], entrances[uid].ports
                self.changes[uid] = Change(workload, ports, past, now)
                self._left[uid] = _PASSES
        for uid in self.changes.keys() - rules.keys():
            del self.changes[uid]

    def judged(self, uid: str) -> None:
        """Note that a workload's connections have been judged once more."""
        self._left[uid] -= 1
        if not self._left[uid]:
            del self.changes[uid]


class Ending:
    """The work. ``limit``: the seconds within which connections end; 0: they stay."""

    def __init__(self, mesh: Mesh, connections: Connections, limit: float) -> None:
        self._mesh = mesh
        self._connections = connections
        self._limit = limit
        self._ruled = Ruled()
        self._said = SaidOnce({"MESHD_EVENT": "denied-connections"})

    async def run(self) -> None:
        """Run until cancelled."""
        while self._limit:
            count = self._mesh.settling.count
            if await self.step():
                await asyncio.sleep(self._limit * _SHARE)
            else:
                await self._mesh.settling.after(count)

    async def step(self) -> bool:
        """Judge once what is to be judged. Return False if that was nothing."""
        await self._look()
        if not self._ruled.changes:
            return False
        await self._mesh.xds.wait_settled(self._limit * _SHARE)
        await self._judge_all()
        return True

    async def _look(self) -> None:
        """Look at the rules that are published."""
        snapshot, entrances = self._mesh.publishing.in_force, self._mesh.publishing.entrances
        if snapshot is None or not self._ruled.is_new(snapshot, entrances):
            return
        rules = await in_thread("reading policies", functools.partial(_rules, snapshot, entrances))
        self._ruled.take(snapshot, entrances, rules)

    async def _judge_all(self) -> None:
        known = await self._known()
        problems: list[str] = []
        for uid, change in tuple(self._ruled.changes.items()):
            try:
                await self._judge(uid, change, known)
            except MeshdError as error:
                problems.append(
                    f"{shown(uid)}: connections that policies deny may be open: {error}"
                )
            self._ruled.judged(uid)
        self._said.say(tuple(problems))

    async def _known(self) -> Mapping[str, str]:
        running, domain = self._mesh.running, self._mesh.options.trust_domain
        return await in_thread("reading addresses", functools.partial(peers, running, domain))

    async def _judge(self, uid: str, change: Change, known: Mapping[str, str]) -> None:
        found = await self._connections.of(uid)
        if those := await in_thread(
            "judging connections", lambda: tuple(denied(change, found, known))
        ):
            count = await self._connections.end(uid, those)
            _log.info(
                "%s: %d open connections ended that policies deny now",
                shown(uid),
                count,
                extra={"MESHD_EVENT": "denied-connections", "MESHD_WORKLOAD": shown(uid)},
            )


def _rules(snapshot: Snapshot, entrances: Entrances) -> Mapping[str, Rules]:
    """Return the rules by uid. What an entrance has of its workload has no labels."""
    policies = policies_of(snapshot)
    return {
        uid: authorization(policies, one, snapshot.options)
        for uid, one in snapshot.workloads.items()
        if uid in entrances
    }
