"""A door: where bytes of others come in, and what is judged of how each input was taken."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final, NoReturn

from meshd.base.errors import InvalidInputError
from tests.fuzz.mutation import grown, mutated

CPU_LIMIT: Final = 0.5
"""Seconds of processor time that an input may cost."""
_ENDLESS: Final = 5.0
"""Seconds of processor time after which an input is given up."""
_SIZES: Final = (2**13, 2**14, 2**15)
"""Bytes of inputs that are compared."""
_MOST_GROWN: Final = 2
"""Valid inputs of a door that are grown."""
_STEEP: Final = 3.2
"""More than this many times the time for twice the bytes is more than linear."""
_TANGIBLE: Final = 0.02
"""Seconds below which times are not compared."""
_SERIES: Final = 5
"""Times that a series is measured anew before its growth counts: growth of ours is there each time,
what else the machine does is not."""
_PACKAGE: Final = str(Path(__file__).parents[2] / "meshd")


@dataclasses.dataclass(frozen=True, slots=True)
class Door:
    name: str
    enter: Callable[[bytes], object]
    """Takes an input as the process does that it comes to."""
    seeds: tuple[bytes, ...]
    """Valid inputs."""
    refusals: tuple[type[Exception], ...] = (InvalidInputError,)
    """What an input may be refused with."""
    make: Callable[[random.Random], bytes] | None = None
    """Makes an input that fits the form and is wrong in some part."""
    costly: bool = False
    """An input takes milliseconds: the whole configuration is compiled for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    door: str
    what: str
    data: bytes

    def __str__(self) -> str:
        shown = repr(self.data[:600]) + ("…" if len(self.data) > 600 else "")
        return f"{self.door}: {self.what}: {shown} ({len(self.data)} bytes)"


@dataclasses.dataclass(slots=True)
class Account:
    """Of one door."""

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    """Seconds of processor time."""
    findings: dict[str, Finding] = dataclasses.field(default_factory=dict[str, Finding])
    """The first input of each kind."""


def inputs(door: Door, rng: random.Random) -> Iterator[bytes]:
    """Without an end; the valid ones first."""
    yield from door.seeds
    while True:
        if door.make and rng.random() < 0.5:
            made = door.make(rng)
            yield made if rng.random() < 0.7 else mutated((made,), rng)
        else:
            yield mutated(door.seeds, rng)


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Within the block, an input without an end raises EndlessError. Libraries' warnings of odd
    inputs are no errors."""
    before = signal.signal(signal.SIGVTALRM, _end)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


class EndlessError(Exception):
    """Nobody waits any longer."""


def _end(*_: object) -> NoReturn:
    raise EndlessError


def judge(door: Door, data: bytes, account: Account, limit: float = CPU_LIMIT) -> float:
    """Take note of what one input does. Gives the processor time that it took, in seconds."""
    took = _enter(door, data, account)
    if took > limit:
        # What else the machine does only adds to it.
        took = min(took, *(_enter(door, data, account) for _ in range(2)))
    account.slowest = max(account.slowest, took)
    if took > limit:
        what = f"{took:.2f} s of processor time"
        account.findings.setdefault("slow", Finding(door.name, what, data))
    return took


def _enter(door: Door, data: bytes, account: Account) -> float:
    """Let an input in once. Gives the processor time that it took, in seconds."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, _ENDLESS)
    refused = False
    try:
        door.enter(data)
    except door.refusals:
        refused = True
    except Exception as error:
        what = f"{type(error).__name__} at {_place(error)}"
        said = f"{what}: {str(error)[:300]}"
        account.findings.setdefault(_kind_of(said), Finding(door.name, said, data))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    took = time.process_time() - began
    account.inputs += 1
    account.refused += refused
    return took


def check_growth(door: Door, account: Account, limit: float = CPU_LIMIT) -> None:
    """Twice the input is to cost about twice the time."""
    for seed in door.seeds[:_MOST_GROWN]:
        series = zip(*(grown(seed, size) for size in _SIZES), strict=True)
        for one in series:
            _check_series(door, one, account, limit)


def _check_series(door: Door, series: tuple[bytes, ...], account: Account, limit: float) -> None:
    largest = judge(door, series[-1], account, limit)
    if largest < _TANGIBLE:
        return
    times: list[float] = []
    for _ in range(_SERIES):
        # The least of several: what else the machine does only adds to it.
        times = [min(judge(door, data, account, limit) for _ in range(3)) for data in series]
        if not all(after > _STEEP * before for before, after in itertools.pairwise(times)):
            return
    what = f"more than linear: {', '.join(f'{took:.3f}' for took in times)} s"
    account.findings.setdefault("steep", Finding(door.name, what, series[-1]))


def _kind_of(said: str) -> str:
    """Return what is said without what differs from input to input of one kind."""
    return re.sub(r"\[.*?\]|'.*?'|\".*?\"|[0-9]+", "", said)[:150]


def _place(error: Exception) -> str:
    """The innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if one.filename.startswith(_PACKAGE)] or list(frames)
    return f"{ours[-1].filename.removeprefix(_PACKAGE).lstrip('/')}:{ours[-1].lineno}"
