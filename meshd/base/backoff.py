"""The waits between attempts that fail, each twice as long as the one before. Pure but for
``spread``."""

from __future__ import annotations

import dataclasses
import random
from typing import Final

_MOST_DOUBLINGS: Final = 64
"""Failures may go on for years; a float would overflow at 1,024 doublings."""


@dataclasses.dataclass(frozen=True, slots=True)
class Backoff:
    """The shortest and the longest wait. Seconds."""

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """Return the wait after so many failures in a row, of which there is at least one."""
        return min(self.first * 2.0 ** min(max(failures - 1, 0), _MOST_DOUBLINGS), self.longest)


def spread(pause: float, by: float = 0.3) -> float:
    """Return ``pause``, changed at random by up to the part ``by`` of it.

    What many nodes or workloads lose at the same moment, they ask for again at different ones.
    """
    return pause * random.uniform(1 - by, 1 + by)  # noqa: S311 - spreads load
