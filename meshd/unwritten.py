"""What is not on disk as it should be: told once in the log when it begins, and when it is over."""

from __future__ import annotations

import logging
from pathlib import Path

from meshd import journal

_log = logging.getLogger(__name__)


class Unwritten:
    """Of one file or directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem = ""
        """Empty when all is written."""

    def note(self, problem: str) -> bool:
        """How the last attempt went. Whether that is news."""
        if problem == self.problem:
            return False
        if problem:
            journal.event(_log, logging.ERROR, "record", "%s", problem)
        else:
            journal.event(_log, logging.INFO, "record", "%s: is written again", self._path)
        self.problem = problem
        return True
