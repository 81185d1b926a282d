"""Python's collector stops a process only briefly, however much the process holds."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

_MOST: Final = 100_000
"""Containers that one collection may look at."""
_SCRIPT: Final = """
import gc
from meshd.base.garbage import bound_pauses

seen = []

def looked_at(phase, info):
    if phase == "start":
        seen.append(sum(len(gc.get_objects(one)) for one in range(info["generation"] + 1)))

gc.callbacks.append(looked_at)
bound_pauses()
bound_pauses()
seen.clear()
kept = [[number] for number in range(1_000_000)]
found = [one for one in map(id, gc.callbacks) if one]
print(max(seen), len(seen), len(found))
"""
_CYCLES: Final = """
import gc
from meshd.base.garbage import bound_pauses

bound_pauses()
for _ in range(500_000):
    one = []
    one.append(one)
print(len(gc.get_objects()) + gc.get_freeze_count())
"""


def test_no_collection_looks_at_more_than_what_is_young() -> None:
    most, collections, callbacks = map(int, _ran(_SCRIPT))
    assert collections > 10
    assert most < _MOST
    assert callbacks == 2


def test_cycles_that_do_not_live_long_are_collected() -> None:
    (left,) = map(int, _ran(_CYCLES))
    assert left < _MOST


def _ran(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()
