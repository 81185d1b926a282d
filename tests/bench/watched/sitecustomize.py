"""Notes how long the steps of a role's event loop take, and the pauses of its garbage collector.

Python imports it at its start where ``PYTHONPATH`` names this directory, which the supervisor
passes on to roles. Each process has a file below ``MESHD_HOME/holds`` with a line for each long
step: when it ended, CPU time of the thread in seconds, and what it was.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any, Final

_NOTED: Final = 0.01
"""Seconds. Shorter steps are not noted."""


class _Watch:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._collecting = 0.0

    def note(self, seconds: float, what: str) -> None:
        if seconds > _NOTED:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{time.time():.3f} {seconds:.6f} {what}\n")

    def collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            took = time.thread_time() - self._collecting
            self.note(took, f"collection of generation {info['generation']}")


def _name(handle: Any) -> str:
    owner = getattr(handle._callback, "__self__", None) or handle._callback
    return repr(owner.get_coro() if isinstance(owner, asyncio.Task) else owner)[:80]


def _watch(directory: Path, role: str) -> None:
    watch = _Watch(directory / f"{role}-{os.getpid()}")
    handle: Any = asyncio.Handle
    run = handle._run

    def measured(one: Any) -> None:
        began = time.thread_time()
        run(one)
        watch.note(time.thread_time() - began, _name(one))

    handle._run = measured
    gc.callbacks.append(watch.collected)


def _role() -> str:
    """Return the role that this process is to be; empty if it is none."""
    arguments = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    if arguments[-2:-1] == ["meshd"]:
        return arguments[-1]
    return "supervisor" if arguments[-1:] == ["meshd"] else ""


_holds = Path(os.environ.get("MESHD_HOME", "/nowhere")) / "holds"
if _holds.is_dir() and (_found := _role()):
    _watch(_holds, _found)
