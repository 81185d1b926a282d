"""The journal of enrollments on disk: what has been begun and has not ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd.api import checked
from meshd.base import kept_file
from meshd.base.disk import replace
from meshd.base.errors import InvalidInputError
from meshd.workloads.intent import Intent

JOURNAL: Final = "enrollments.json"
"""In meshd's own directory."""


class Journal:
    """The file. It is written before anything is done of what it says, and after all is done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._newest = 0
        self._written = 0

    def load(self) -> dict[str, Intent]:
        """Return all intents by key; a file that cannot be used is moved out of the way."""
        consequence = "enrollments that were not finished stay so: enroll or unenroll again"
        return kept_file.load(self._path, decode, consequence) or {}

    async def write(self, intents: Callable[[], Mapping[str, Intent]]) -> None:
        """Write the intents that there are now.

        Raises SystemRefusedError: then the file is as it was.
        """
        self._newest += 1
        content = msgspec.json.encode(intents())
        await asyncio.to_thread(self._write, self._newest, content)

    def _write(self, number: int, content: bytes) -> None:
        """Write a state, unless a newer one is written: who waits for a thread may be stopped, and
        the thread goes on."""
        with self._writing:
            if number > self._written:
                replace(self._path, content)
                self._written = number


def decode(content: bytes) -> dict[str, Intent]:
    """Raises InvalidInputError."""
    found = checked.decode(content, dict[str, Intent])
    if any(key != intent.key for key, intent in found.items()):
        raise InvalidInputError("an intent has the key of another")
    return found
