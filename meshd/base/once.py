"""Logs lasting problems when they begin, not each time they are seen."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

_log: Final = logging.getLogger(__name__)


class SaidOnce:
    """The problems of one event, which ``fields`` name."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._said: frozenset[str] = frozenset()

    def say(self, lines: Iterable[str]) -> None:
        """Log the present problems that did not exist the last time."""
        now = frozenset(lines)
        for line in sorted(now - self._said):
            _log.error("%s", line, extra=self._fields)
        self._said = now
