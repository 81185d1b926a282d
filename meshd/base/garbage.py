"""Bounds how long Python's garbage collector stops all threads of a process.

The collector examines all containers of a generation at once. A large mesh is compiled to millions
of long-lived containers without cycles. So containers that have outlived two collections are frozen
and not examined again: https://docs.python.org/3/library/gc.html#gc.freeze. Frozen cycles that
become garbage stay until a full collection, which runs once many more containers are frozen than
after the last one.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import Final

_YOUNG: Final = 10_000
"""Containers of the youngest generation: examining so many takes a few milliseconds."""
_TIMES: Final = 2
"""Collections of the youngest generation for each of the next one."""
_FREEZES: Final = 50
"""Freezes between two counts of the frozen containers: counting them takes milliseconds."""
_MOST: Final = 2_000_000
"""Frozen containers, beyond those after the last full collection, that cause the next one."""


class _Generations:
    """Freezes what outlives two collections, and runs full collections."""

    def __init__(self) -> None:
        self._freezes = 0
        self._left = 0
        """Frozen containers after the last full collection."""

    def collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Take part in a collection: see ``gc.callbacks``."""
        if phase != "stop" or info["generation"] < 1:
            return
        gc.freeze()
        self._freezes += 1
        if self._freezes >= _FREEZES:
            self._freezes = 0
            if gc.get_freeze_count() > self._left + _MOST:
                # No collection can begin inside another.
                threading.Thread(target=self.collect_all, daemon=True).start()

    def collect_all(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._left = gc.get_freeze_count()


def bound_pauses() -> None:
    """Keep the pauses of the garbage collector in this process short from now on."""
    gc.set_threshold(_YOUNG, _TIMES, 1)
    if not any(isinstance(getattr(one, "__self__", None), _Generations) for one in gc.callbacks):
        gc.callbacks.append(_Generations().collected)
