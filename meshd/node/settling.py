"""Settles whenever a fact has changed, and lets others wait for that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from meshd.base.errors import MeshdError
from meshd.node.in_work import InWork
from meshd.node.stages import Progress

_AGAIN: Final = 5.0
"""Seconds after which what could not be put in force is tried again."""
T = TypeVar("T")
_log: Final = logging.getLogger(__name__)


class Settling:
    """The loop. Nothing has been settled when it is made, so that it begins with a round."""

    def __init__(self) -> None:
        self.count = 0
        """How often it has settled."""
        self.problem = ""
        """Why what is wanted could not be put in force; empty if it is."""
        self._unanswered = ""
        self._dirty = asyncio.Event()
        self._dirty.set()
        self._settled = asyncio.Condition()

    def touch(self) -> None:
        """Note that a fact has changed."""
        self._dirty.set()

    @property
    def is_due(self) -> bool:
        """Return whether a fact has changed since it settled last."""
        return self._dirty.is_set()

    async def run(
        self,
        settle: Callable[[], None],
        work: InWork,
        progress: Callable[[], Progress] = Progress,
    ) -> None:
        """Run until cancelled. ``settle`` raises MeshdError; ``progress`` returns what it has begun
        that is still under way."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if self.problem else None):
                    await self._dirty.wait()
            self._dirty.clear()
            self.problem = self._settled_or_why(settle)
            work.settled(progress())
            self.count += 1
            async with self._settled:
                self._settled.notify_all()

    def _settled_or_why(self, settle: Callable[[], None]) -> str:
        """Settle; return why that failed, or nothing.

        Whatever the reason is, what was in force stays, and people can still ask and change what is
        wanted: a role that ended here would begin with the same facts again.
        """
        try:
            settle()
        except Exception as error:
            return _said(error, self.problem, "what is wanted is not in force")
        return ""

    def answer(self, ask: Callable[[], T]) -> T | None:
        """Return what ``ask`` returns, or None if that fails, which is logged once.

        It may succeed after the next round: a snapshot that cannot be taken now can be taken when
        the facts are others.
        """
        try:
            answer = ask()
        except Exception as error:
            self._unanswered = _said(error, self._unanswered or self.problem, "nothing is told")
            return None
        self._unanswered = ""
        return answer

    async def after(self, count: int) -> None:
        """Wait until it has settled more than ``count`` times."""
        async with self._settled:
            await self._settled.wait_for(lambda: self.count > count)

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Return whether a predicate becomes true within ``timeout`` seconds; it is checked after
        each round."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._settled:
                await self._settled.wait_for(predicate)
        return predicate()


def _said(error: Exception, before: str, consequence: str) -> str:
    """Return the reason of a failure; log it unless it was logged ``before``."""
    if is_expected := isinstance(error, MeshdError):
        reason = str(error)
    else:
        reason = f"{consequence}, by a fault of meshd: {error!r}"
    if reason != before:
        traceback = None if is_expected else error
        _log.error("%s", reason, exc_info=traceback, extra={"MESHD_EVENT": "not-settled"})
    return reason
