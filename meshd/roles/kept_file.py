"""A file that holds the newest of some state, or will as soon as the disk lets it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd.config import applied
from meshd.errors import MeshdError

_AGAIN: Final = 5.0
"""Seconds after which what could not be written is written again."""
_log = logging.getLogger(__name__)


class KeptFile:
    """``content`` gives what is to be in it; ``changed`` is called when ``problem`` is another."""

    def __init__(
        self, path: Path, content: Callable[[], bytes], changed: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self._content = content
        self._changed = changed
        self._stale = asyncio.Event()
        self.problem = ""
        """Empty when it is written."""

    def touch(self) -> None:
        """What is in it is not the newest."""
        self._stale.set()

    async def run(self) -> None:
        """Until cancelled. Whatever comes while one state is being written goes into the next."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await asyncio.to_thread(applied.replace, self.path, self._content())
            except MeshdError as error:
                self._say(f"{error}; what is in force would not outlive a restart")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN):
                        await self._stale.wait()
                self._stale.set()
            else:
                self._say("")

    def _say(self, problem: str) -> None:
        if problem == self.problem:
            return
        if problem:
            _log.error("%s", problem, extra={"MESHD_EVENT": "record"})
        else:
            _log.info("%s: is written again", self.path, extra={"MESHD_EVENT": "record"})
        self.problem = problem
        self._changed()
