"""A file that holds the newest of some state, or will as soon as the disk allows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd.base.errors import MeshdError
from meshd.base.replacing import replace
from meshd.base.unwritten import Unwritten

_AGAIN: Final = 5.0
"""Seconds after which what could not be written is written again."""


class KeptFile:
    """The file. ``content`` returns what is to be in it; ``changed`` is called when ``problem`` has
    changed."""

    def __init__(
        self, path: Path, content: Callable[[], bytes], changed: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self._content = content
        self._changed = changed
        self._stale = asyncio.Event()
        self._unwritten = Unwritten(path)

    @property
    def problem(self) -> str:
        """Return why the file is not written; empty if it is."""
        return self._unwritten.problem

    def touch(self) -> None:
        """Note that the content is not the newest."""
        self._stale.set()

    async def run(self) -> None:
        """Write until cancelled; changes during one write go into the next."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await asyncio.to_thread(replace, self.path, self._content())
            except MeshdError as error:
                self._note(f"{error}; the current state would be lost on restart")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN):
                        await self._stale.wait()
                self._stale.set()
            else:
                self._note("")

    def _note(self, problem: str) -> None:
        if self._unwritten.note(problem):
            self._changed()
