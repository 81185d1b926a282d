"""What is not on disk as it should be: told once in the log when it begins, and when it is over."""

from __future__ import annotations

import logging
from pathlib import Path

from meshd import journal

_log = logging.getLogger(__name__)


class Unwritten:
    """Of one file or directory."""

    def __init__(self, path: Path, event: str = "record", over: str = "is written again") -> None:
        """``event``: its name in the journal; ``over``: what is said at the end."""
        self._path = path
        self._event = event
        self._over = over
        self.problem = ""
        """Empty when all is written."""

    def note(self, problem: str) -> bool:
        """How the last attempt went. Whether that is news."""
        if problem == self.problem:
            return False
        if problem:
            journal.event(_log, logging.ERROR, self._event, "%s", problem)
        else:
            journal.event(_log, logging.INFO, self._event, "%s: %s", self._path, self._over)
        self.problem = problem
        return True
