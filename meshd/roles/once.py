"""What is wrong and lasts is said in the journal when it begins, not each time it is looked at."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

_log: Final = logging.getLogger(__name__)


class SaidOnce:
    """Lines of one event, which ``fields`` name."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._said: frozenset[str] = frozenset()

    def say(self, lines: Iterable[str]) -> None:
        """All that is wrong now; of that, what was not wrong the last time is logged."""
        now = frozenset(lines)
        for line in sorted(now - self._said):
            _log.error("%s", line, extra=self._fields)
        self._said = now
