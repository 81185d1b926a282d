"""Distinguishes a proxy that hangs from one that is busy or short of processor time. Pure.

A proxy's main thread wakes up some times a second to look at its load. If it has not run at all
between two looks, though it was not waiting for a processor, it is stopped or waits for something
that does not come. On a machine under load the thread runs, or is runnable.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from meshd.base.numbers import whole

INTERVAL: Final = 5.0
"""Seconds between looks at a proxy that answers."""
SHORT_INTERVAL: Final = 2.0
"""Seconds between looks at one that did not."""
ANSWER_LIMIT: Final = 2.0
"""Seconds for an answer."""
_MISSES: Final = 3
"""Answers missed in a row by a thread that does not run, until it is held to hang."""
_BUSY: Final = 60.0
"""Seconds of processor time that a thread may take without giving an answer."""
_RUNNABLE: Final = "R"
_STOPPED: Final = "Tt"


@dataclasses.dataclass(frozen=True, slots=True)
class Thread:
    """A main thread at one time, as the kernel accounts for it."""

    state: str
    """One letter of proc(5)."""
    ran: float
    """Seconds of processor time."""
    turns: int
    """How often it got a processor."""


@dataclasses.dataclass(frozen=True, slots=True)
class Silence:
    """Answers missed in a row, and the thread at the first and at the last of them."""

    first: Thread
    last: Thread
    misses: int = 1
    resting: int = 1
    """Misses in a row at which it had not run since the one before."""

    def then(self, thread: Thread) -> Silence:
        """Return the silence after another missed answer."""
        still = thread.turns == self.last.turns and thread.state != _RUNNABLE
        return Silence(self.first, thread, self.misses + 1, self.resting + 1 if still else 1)

    @property
    def verdict(self) -> str:
        """Return why the proxy is considered hung; empty if it may yet answer."""
        if self.resting >= _MISSES:
            how = "is stopped" if self.last.state in _STOPPED else "waits and does not run"
            return f"hung: {self.resting} answers missed in a row, while its main thread {how}"
        took = self.last.ran - self.first.ran
        if took >= _BUSY:
            return f"hung: no answer, while its main thread took {took:.0f} s of processor time"
        return ""

    @property
    def is_stopped(self) -> bool:
        """Return whether the proxy serves nobody; otherwise its worker threads go on."""
        return self.last.state in _STOPPED


def heard(before: Silence | None, thread: Thread) -> Silence:
    """Return the silence after a missed answer; ``before`` is the silence until then."""
    return before.then(thread) if before else Silence(thread, thread)


def parse(stat: str, schedstat: str) -> Thread | None:
    """Parse ``/proc/PID/task/PID/stat`` and ``schedstat``; None if they are malformed."""
    # The second field is a name in parentheses, which may hold anything.
    state = stat.rpartition(")")[2].split()[:1]
    counts = [whole(count) for count in schedstat.split()]
    match counts:
        case [int(ran), int(), int(turns)] if state:
            return Thread(state[0], ran / 1e9, turns)
        case _:
            return None
