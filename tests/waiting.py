"""What comes by itself is waited for: on the very condition that is asserted, with a deadline.

Nothing here says how fast meshd is. A condition that holds costs no time, however long the
patience; and a machine that does many things at once may stand still for many seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 60.0
"""Seconds after which a condition that should come by itself counts as missed."""


class Missing(str):
    """What a condition lacks, which counts as false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return what the condition gives, once it is true.

    Raises AssertionError when it does not become true.
    """
    deadline = time.monotonic() + patience
    while not (found := condition()):
        lacks = f": {found}" if isinstance(found, Missing) else ""
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}{lacks}"
        time.sleep(0.05)
    return found
