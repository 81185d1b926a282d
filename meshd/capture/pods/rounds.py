"""When a workload that is captured is probed again."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from meshd.base.backoff import Backoff, spread

_ROUNDS: Final = 4
"""Into which the probes of one interval are gathered: several at one waking cost far less."""
_BACKOFF: Final = Backoff(0.5, math.inf)


class Again:
    """Of one workload."""

    def __init__(self) -> None:
        self._doubts = 0

    def after(self, *, well: bool, interval: float) -> float:
        """Seconds. Sooner than usual as long as it has not been well: what is in the way at first,
        such as a proxy that is about to listen, mostly goes soon."""
        self._doubts = 0 if well else self._doubts + 1
        soon = _BACKOFF.pause(self._doubts)
        if soon < interval and not well:
            return soon
        return _next_round(asyncio.get_running_loop().time(), interval)


def _next_round(now: float, interval: float) -> float:
    """Seconds until the next probe: about ``interval``, spread, at a round that others share."""
    length = interval / _ROUNDS
    return math.ceil((now + spread(interval, 0.2)) / length) * length - now
