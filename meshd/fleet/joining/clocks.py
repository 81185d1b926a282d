"""Explanations of what a wrong clock does to certificates. Pure; all times in Unix seconds.

An explanation stays the same while its reason does, so that it is reported once: it contains no
time of day, but the distance between clocks.
"""

from __future__ import annotations

from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.base.moments import span

TOLERANCE: Final = 60.0
"""Seconds by which two clocks may differ; certificates allow for twice that."""


def difference(own: float, other: float, whose: str) -> str:
    """Return what is wrong if this host's clock and another differ; empty if nothing is."""
    off = own - other
    if abs(off) <= TOLERANCE:
        return ""
    where, what = ("ahead of", "expired") if off > 0 else ("behind", "not valid yet")
    return (
        f"this host's clock is {span(off)} {where} that of {whose}, so certificates are {what} "
        "here: set the clock that is wrong"
    )


def check_counts(begins: float, expires: float, now: float) -> None:
    """Check that a new certificate is valid by this clock, too. Raises InvalidInputError."""
    if not begins <= now < expires:
        when = (
            f"begins in {span(begins - now)}"
            if now < begins
            else f"ended {span(now - expires)} ago"
        )
        raise InvalidInputError(
            f"the server's new certificate {when} by this host's clock: set the clock that is wrong"
        )
