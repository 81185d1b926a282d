"""When a workload that is captured is probed again."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Final

_ROUNDS: Final = 4
"""Into which the probes of one interval are gathered: several at one waking cost far less."""
_FIRST: Final = 0.25
_LONGEST_DOUBLING: Final = 16


class Again:
    """Of one workload."""

    def __init__(self) -> None:
        self._doubts = 0

    def after(self, *, well: bool, interval: float) -> float:
        """Seconds. Sooner than usual as long as it has not been well: what is in the way at first,
        such as a proxy that is about to listen, mostly goes soon."""
        self._doubts = 0 if well else min(self._doubts + 1, _LONGEST_DOUBLING)
        soon = _FIRST * 2**self._doubts
        if soon < interval and not well:
            return soon
        return _next_round(asyncio.get_running_loop().time(), interval)


def _next_round(now: float, interval: float) -> float:
    """Seconds until the next probe: about ``interval``, spread, at a round that others share."""
    spread = interval * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
    length = interval / _ROUNDS
    return math.ceil((now + spread) / length) * length - now
