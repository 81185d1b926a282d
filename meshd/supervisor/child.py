"""The life of one child process as a pure state machine: events in, actions out.

It knows neither processes nor clocks. There is at most one timer for each child: each step says
what the timer is to be set to, and thereby cancels the one before.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from meshd.base.backoff import Backoff

_RESTARTS: Final = Backoff(0.1, 10.0)


class State(enum.StrEnum):
    IDLE = "idle"
    RUNNING = "running"
    WAITING = "waiting"
    """It ended by itself and will be started again."""
    DRAINING = "draining"
    STOPPING = "stopping"
    """It was asked to end."""
    KILLING = "killing"
    STOPPED = "stopped"
    """It ended as it was told to; nothing follows."""


class Event(enum.Enum):
    START = enum.auto()
    ADOPT = enum.auto()
    """It runs already, started by a supervisor before this one."""
    EXITED = enum.auto()
    ENDED = enum.auto()
    """It exited in good order, though nobody had asked it to."""
    STOP = enum.auto()
    DRAINED = enum.auto()
    TIMER = enum.auto()


class Act(enum.Enum):
    NOTHING = enum.auto()
    SPAWN = enum.auto()
    DRAIN = enum.auto()
    TERMINATE = enum.auto()
    KILL = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """How a child is started again and ended. Times in seconds."""

    restarts: Backoff = _RESTARTS
    settled: float = 10.0
    """Who lived that long is started again as if it had never failed."""
    drain: float = 0.0
    """Time to finish what it is doing before it is asked to end; 0: it is asked at once."""
    orderly: float | None = None
    """Who lived that long and ENDED did so to begin anew, and has not failed; None: nobody."""
    grace: float = 1.0
    """Time to end by itself before it is killed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    state: State = State.IDLE
    failures: int = 0
    """Exits in a row, none of which came after it had settled."""

    @property
    def lives(self) -> bool:
        return self.state in _ALIVE

    @property
    def wanted(self) -> bool:
        return self.state in {State.RUNNING, State.WAITING}

    @property
    def leaving(self) -> bool:
        """Return whether the child is about to end, or gone."""
        return not self.wanted and self.state is not State.IDLE


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    child: Child
    act: Act = Act.NOTHING
    timer: float | None = None
    """Seconds until TIMER; None: no timer."""


_ALIVE: Final = frozenset({State.RUNNING, State.DRAINING, State.STOPPING, State.KILLING})


def step(  # noqa: PLR0911 - one line for each transition is how a table reads best
    child: Child, event: Event, policy: Policy, *, lived: float = 0.0
) -> Step | None:
    """Return the next step, or None if nothing follows: the child and its timer stay as they are.

    ``lived`` is how long a process that EXITED had run, in seconds.
    """
    match child.state, event:
        case State.IDLE, Event.START:
            return Step(Child(State.RUNNING), Act.SPAWN)
        case State.IDLE, Event.ADOPT:
            return Step(Child(State.RUNNING))
        case State.RUNNING, Event.ENDED if policy.orderly is not None and lived >= policy.orderly:
            return Step(Child(State.WAITING, child.failures), timer=policy.restarts.pause(1))
        case State.RUNNING, Event.EXITED | Event.ENDED:
            failures = 1 if lived >= policy.settled else child.failures + 1
            return Step(Child(State.WAITING, failures), timer=policy.restarts.pause(failures))
        case State.WAITING, Event.TIMER:
            return Step(Child(State.RUNNING, child.failures), Act.SPAWN)
        case ((State.IDLE | State.WAITING), Event.STOP):
            return Step(Child(State.STOPPED))
        case State.RUNNING, Event.STOP if policy.drain > 0:
            return Step(Child(State.DRAINING), Act.DRAIN, policy.drain)
        case (State.RUNNING, Event.STOP) | (State.DRAINING, Event.TIMER | Event.DRAINED):
            return Step(Child(State.STOPPING), Act.TERMINATE, policy.grace)
        case State.STOPPING, Event.TIMER:
            return Step(Child(State.KILLING), Act.KILL)
        case ((State.DRAINING | State.STOPPING | State.KILLING), Event.EXITED):
            return Step(Child(State.STOPPED))
        case _:
            return None
