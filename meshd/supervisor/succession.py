"""Decides which members of a pool are to be replaced, and waits until all of them are.

Which new member is started when, and which old one ends, is decided by the plan of ``proxy.pool``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from meshd.base.errors import NotReadyError
from meshd.model.pool import Pool
from meshd.proxy.pool import Member
from meshd.supervisor.runner import Runner

_TAKE_OVER: Final = 30.0
"""Seconds for a new member to serve what the old one serves."""
_ATTEMPTS: Final = 3
"""Failed starts of a new member, after which the old one is not replaced."""


class Succession:
    """A replacement of members. ``runners``: the pool's, at any time. ``follow`` triggers the
    plan."""

    def __init__(
        self, pool: Pool, runners: Mapping[Member, Runner], follow: Callable[[], None]
    ) -> None:
        self.outdated: set[Member] = set()
        self._pool = pool
        self._runners = runners
        self._follow = follow
        self._progress = asyncio.Condition()
        self._replacing = asyncio.Lock()

    async def replace_all(self, drain_time: float) -> None:
        """Raises NotReadyError when a new one does not come up; the old ones stay."""
        async with self._replacing:
            self.outdated |= {
                member for member, runner in self._runners.items() if runner.child.wanted
            }
            while self.outdated:
                before = len(self.outdated)
                self._follow()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TAKE_OVER + drain_time):
                        await self._until(
                            lambda: len(self.outdated) < before or self._is_hopeless()  # noqa: B023
                        )
                if len(self.outdated) == before:
                    raise NotReadyError(self._give_up())
            await self._until(lambda: all(runner.child.wanted for runner in self._runners.values()))

    async def went_on(self) -> None:
        """Wake those that wait, after the plan was followed."""
        async with self._progress:
            self._progress.notify_all()

    async def _until(self, so: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(so)

    def _newcomers(self) -> list[Runner]:
        """Return the members that are to take over."""
        slots = {member.slot for member in self.outdated}
        return [
            runner
            for member, runner in self._runners.items()
            if member.slot in slots and member not in self.outdated and runner.child.wanted
        ]

    def _is_hopeless(self) -> bool:
        return any(runner.restarts >= _ATTEMPTS for runner in self._newcomers())

    def _give_up(self) -> str:
        newcomers = self._newcomers()
        reasons = _reasons(newcomers)
        for runner in newcomers:
            runner.stop()
        self.outdated.clear()
        return f"the {self._pool} pool was not replaced, and goes on as it was: {reasons}"


def _reasons(newcomers: Iterable[Runner]) -> str:
    usual = "it does not serve what the old one serves"
    told = (f"{runner.name}: {runner.problem or usual}" for runner in newcomers)
    return "; ".join(told) or "no new member was started"
