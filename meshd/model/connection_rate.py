"""How many new connections a second a workload may open, and be sent."""

from __future__ import annotations

from typing import Final

ANNOTATION: Final = "meshd.io/connections-per-second"
"""Of a workload: new connections a second that it opens."""
HIGHEST: Final = 10_000
"""A second. The kernel counts in 1/10,000 s: xt_limit.h, XT_LIMIT_SCALE."""
BURST: Final = 2
"""Seconds whose connections may arrive at once."""


def received(rate: int) -> int:
    """Return how many a second a workload may be sent that may open so many; 0: any number.

    These are twice as many, so that no single client can use them up.
    """
    return min(2 * rate, HIGHEST)
