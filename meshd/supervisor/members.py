"""Keeps a pool as its plan requires: the shell around ``proxy.pool``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from meshd import wire
from meshd.model.pool import Pool
from meshd.proxy.pool import Member, plan, size, superseded
from meshd.supervisor.member import Maker
from meshd.supervisor.record import Entry
from meshd.supervisor.runner import Runner
from meshd.supervisor.succession import Succession
from meshd.supervisor.vitals import Seen
from meshd.supervisor.watchdog import Watchdog

_LOOK_AGAIN: Final = 0.1
"""Seconds between looks at a proxy while something is expected of it."""


class Members:
    """The running proxies of a pool."""

    def __init__(self, pool: Pool, maker: Maker, changed: Callable[[], None]) -> None:
        self._pool = pool
        self._maker = maker
        self._tell = changed
        self._runners: dict[Member, Runner] = {}
        self._seen = Seen(maker.home)
        self._bell = asyncio.Event()
        self._succession = Succession(pool, self._runners, self._bell.set)
        self._watchdog = Watchdog(maker.home, self._runners, changed)

    # ---- what is so

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(
            Entry(runner.name, runner.identity, runner.since, True, runner.child.leaving)
            for runner in self._runners.values()
            if runner.identity.pid
        )

    @property
    def states(self) -> tuple[wire.RoleStatus, ...]:
        return tuple(
            self._watchdog.status(self._seen.status(member, self._runners[member]))
            for member in sorted(self._runners)
        )

    @property
    def size(self) -> int:
        """Return the number of members that the pool is to have."""
        return size(self._pool, self._maker.settings.proxy.count)

    @property
    def live(self) -> int:
        return sum(1 for one in self._runners.items() if self._seen.is_live(*one))

    # ---- what is to be

    def adopt(self, entries: Iterable[Entry]) -> None:
        """Go on with those that an earlier supervisor left; of two in a slot the newer one."""
        staying: list[Member] = []
        for entry in sorted(entries, key=lambda entry: entry.since):
            member = Member.parse(entry.name)
            if member is None or member.pool is not self._pool:
                continue
            runner = self._make(member)
            if not runner.adopt(entry.identity, entry.since):
                continue
            self._runners[member] = runner
            if entry.leaving:
                runner.stop()
            else:
                staying.append(member)
        self._succession.outdated |= superseded(staying)

    def resize(self) -> None:
        """Follow the number in the settings; other settings hold for members started from now
        on."""
        self._bell.set()

    async def replace(self) -> None:
        """Replace each member. Raises NotReadyError if a new one does not come up; the old ones
        stay."""
        await self._succession.replace_all(float(self._maker.settings.proxy.drain_time))

    async def keep(self) -> None:
        """Keep the pool until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watchdog.keep())
            tasks.create_task(self._keep_to_plan())

    async def _keep_to_plan(self) -> None:
        while True:
            self._bell.clear()
            await self._look()
            self._follow_plan()
            await self._succession.went_on()
            waits = bool(self._succession.outdated) or any(
                runner.child.wanted and not self._seen.is_live(member, runner)
                for member, runner in self._runners.items()
            )
            try:
                async with asyncio.timeout(_LOOK_AGAIN if waits else None):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def stop(self, limit: float) -> None:
        """Stop all members; ``limit`` is the number of seconds for draining."""
        for runner in self._runners.values():
            runner.stop(limit)
        await asyncio.gather(*(runner.stopped() for runner in self._runners.values()))
        self._forget()

    def _make(self, member: Member) -> Runner:
        def changed() -> None:
            self._bell.set()
            self._tell()

        return self._maker.make(member, changed)

    def _follow_plan(self) -> None:
        self._forget()
        running = [self._seen.running(*one) for one in self._runners.items()]
        following = plan(self._pool, self.size, running, self._succession.outdated)
        for member in following.start:
            self._runners[member] = self._make(member)
            self._runners[member].start()
        for member in following.stop:
            self._succession.outdated.discard(member)
            self._runners[member].stop()

    def _forget(self) -> None:
        for member, runner in list(self._runners.items()):
            if runner.child.state == "stopped":
                del self._runners[member]
                self._seen.forget(member)
                self._succession.outdated.discard(member)
                self._maker.remove_files(member)
                self._tell()

    async def _look(self) -> None:
        """Ask the members of which something is expected; a live member stays live until it
        ends."""
        unsure = [
            (member, runner)
            for member, runner in self._runners.items()
            if runner.identity.pid
            and (self._succession.outdated or not self._seen.is_live(member, runner))
        ]
        if not unsure:
            return
        before = self.live
        await asyncio.gather(*(self._seen.ask(*one) for one in unsure))
        if self.live != before:
            self._tell()
