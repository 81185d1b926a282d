"""Writes to disk that failed: reported once in the log when that begins, and when it is over."""

from __future__ import annotations

import logging
from pathlib import Path

from meshd.base import journal

_log = logging.getLogger(__name__)


class Unwritten:
    """The state of one file or directory."""

    def __init__(self, path: Path, event: str = "record", over: str = "is written again") -> None:
        """Begin without a problem; ``event``: its name in the journal; ``over``: the message at the
        end."""
        self._path = path
        self._event = event
        self._over = over
        self.problem = ""
        """Empty when all is written."""

    def note(self, problem: str) -> bool:
        """Note the result of the last attempt; return whether it differs from the one before."""
        if problem == self.problem:
            return False
        if problem:
            journal.event(_log, logging.ERROR, self._event, "%s", problem)
        else:
            journal.event(_log, logging.INFO, self._event, "%s: %s", self._path, self._over)
        self.problem = problem
        return True
