"""Carries out long work in a thread, one job at a time, and always the newest.

The event loop goes on meanwhile. What a job is given is taken on the loop when the job begins, and
what it has made is handed over on the loop, so that neither needs a lock. A job may keep things
from one time to the next: no two run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from meshd.base.threads import in_thread

Made = TypeVar("Made")

_AGAIN: Final = 5.0
"""Seconds after which a job that has failed is tried again."""
_log: Final = logging.getLogger(__name__)


class Background(Generic[Made]):
    """The work. ``begin`` returns the job to do now, and ``done`` is called with what it made;
    ``ended`` after that, in a step of its own, since each may take long."""

    def __init__(
        self,
        name: str,
        begin: Callable[[], Callable[[], Made]],
        done: Callable[[Made], None],
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._begin = begin
        self._done = done
        self._ended = ended
        self._bell = asyncio.Event()
        self._running = False
        self.asked = 0
        """How often a job was asked for."""
        self.finished = 0
        """What ``asked`` was when the last job began of which the result is there."""
        self.problem = ""
        """Why the last job failed by a fault of meshd; empty if it did not."""

    def ask(self) -> None:
        """Have a job begun as soon as none runs."""
        self.asked += 1
        self._bell.set()

    @property
    def busy(self) -> bool:
        """Return whether a job runs or is to begin, be it again."""
        return self._running or self._bell.is_set() or bool(self.problem)

    def finish(self) -> None:
        """Carry out here and now what was asked for.

        ``run`` does so in a node. Tests and the bench have no loop: tests go through the order of
        jobs step by step, and the bench measures each job by itself.
        """
        while self._bell.is_set():
            self._bell.clear()
            number = self.asked
            self._done(self._begin()())
            self.finished = number
            if self._ended:
                self._ended()

    async def run(self) -> None:
        """Run until cancelled. A job that runs then is abandoned, and changes nothing."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            await self._carry_out()
            if self.problem:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN):
                        await self._bell.wait()
                self._bell.set()

    async def _carry_out(self) -> None:
        """Begin the job, and take over what it has made; a fault in either is one of the job."""
        self._running, number = True, self.asked
        try:
            job = in_thread(self._name, self._begin())
            await asyncio.wait((job,))
            self._done(job.result())
            self.problem, self.finished = "", number
            if self._ended:
                await asyncio.sleep(0)  # others have their turn
                self._ended()
        except Exception as error:
            self._fail(error)
        finally:
            self._running = False

    def _fail(self, error: Exception) -> None:
        reason = f"{self._name} failed, by a fault of meshd: {error!r}"
        if reason != self.problem:
            _log.error("%s", reason, exc_info=error, extra={"MESHD_EVENT": "not-settled"})
        self.problem = reason
