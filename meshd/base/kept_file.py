"""Files that hold the newest of some state: what is written last is read at the next start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from meshd.base import journal
from meshd.base.aside import move_aside
from meshd.base.disk import replace
from meshd.base.errors import UNDECODABLE, MeshdError
from meshd.base.unwritten import Unwritten

T = TypeVar("T")
_log = logging.getLogger(__name__)
_AGAIN: Final = 5.0
"""Seconds after which what could not be written is written again."""


def load(
    path: Path, decode: Callable[[bytes], T], consequence: str, *, secret: bool = False
) -> T | None:
    """Return what ``decode`` makes of a file; None if there is none, or it cannot be used.

    A file that cannot be used is moved out of the way, or removed if its content is ``secret`` and
    can be made again; and it is reported with the ``consequence``. ``decode`` raises MeshdError, or
    what msgspec does.
    """
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, MeshdError, *UNDECODABLE) as error:
        text = "%s: not usable, so %s: %s%s"
        arguments = (path, consequence, error, _removed(path) if secret else _moved(path))
        journal.event(_log, logging.WARNING, "record-lost", text, *arguments)
        return None


def lost(path: Path) -> tuple[str, ...]:
    """Return the paths of what a file had before it was found unusable; none if it has been
    written since, or never was."""
    if path.exists():
        return ()
    return tuple(sorted(map(str, path.parent.glob(f"{path.name}.damaged-*"))))


def _removed(path: Path) -> str:
    try:
        path.unlink()
    except OSError as error:
        return f"; it cannot be removed: {error.strerror}"
    return "; it was removed, since it may hold a private key"


def _moved(path: Path) -> str:
    try:
        return f"; it is now {move_aside(path)}"
    except OSError as error:
        return f"; it will be written over, since it cannot be moved: {error.strerror}"


def _write(path: Path, content: Callable[[], bytes]) -> None:
    """Raises SystemRefusedError."""
    replace(path, content())


class KeptFile:
    """The file. ``content`` returns what makes its bytes, which a thread calls, and which looks at
    nothing that changes. ``changed`` is called when ``problem`` has changed."""

    def __init__(
        self,
        path: Path,
        content: Callable[[], Callable[[], bytes]],
        changed: Callable[[], None] = lambda: None,
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
                await asyncio.to_thread(_write, self.path, self._content())
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
