"""Statistics of results: how often each came, and whether chance explains it. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

SIGMAS: Final = 5.0
"""Chance alone leaves these bounds once in 1.7 million times."""

_UNIQ: Final = re.compile(r"^\s*(\d+) (\S.*?)\s*$", re.MULTILINE)
_TIMED: Final = re.compile(r"(\d{3}) (\d+\.\d+)")
_LOAD: Final = re.compile(r"^Code +(-?\d+) : (\d+) ", re.MULTILINE)


def likely(count: int, share: float, sigmas: float = SIGMAS) -> range:
    """Return how many of ``count`` independent requests may go where ``share`` of them should."""
    spread = sigmas * math.sqrt(count * share * (1 - share))
    low, high = math.ceil(count * share - spread), math.floor(count * share + spread)
    return range(max(low, 0), min(high, count) + 1)


def uniq_counts(text: str) -> dict[str, int]:
    """Parse the output of ``sort | uniq -c``."""
    return {what: int(times) for times, what in _UNIQ.findall(text)}


def timed(text: str) -> tuple[str, float]:
    """Return a status and its seconds, of curl -w '%{http_code} %{time_total}'."""
    found = _TIMED.fullmatch(text.strip())
    return (found[1], float(found[2])) if found else ("", math.inf)


def status_counts(text: str) -> dict[int, int]:
    """Parse the counts of the load generator; -1 stands for no answer at all."""
    return {int(status): int(times) for status, times in _LOAD.findall(text)}
