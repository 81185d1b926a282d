"""Altered inputs at each door: refused in our words, within bounds of time and memory.

A longer run is ``make fuzz``.
"""

from __future__ import annotations

import itertools
import logging
import random
import resource
import time
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from tests.fuzz.door import Account, Door, check_growth, inputs, interruptible, judge
from tests.fuzz.table import table

_INPUTS: Final = 300
_FEW: Final = 60
"""Where each is costly."""
_CPU_LIMIT: Final = 2.5
"""Seconds: other tests run beside this one."""
_MEMORY: Final = 256
"""MiB that one door may add to the process."""


@pytest.fixture(scope="module")
def doors() -> Iterator[Mapping[str, Door]]:
    logging.disable()
    try:
        with table() as found:
            yield found
    finally:
        logging.disable(logging.NOTSET)


with table() as _known:
    _NAMES = tuple(_known)


@pytest.mark.parametrize("name", _NAMES)
def test_whatever_comes_in_is_taken_or_refused_in_bounds(
    doors: Mapping[str, Door], name: str
) -> None:
    door, account, before = doors[name], Account(), _resident()
    count = _FEW if door.costly else _INPUTS
    rng = random.Random(name)  # noqa: S311 - the same inputs each time
    with interruptible():
        for data in itertools.islice(inputs(door, rng), len(door.seeds) + count):
            judge(door, data, account, _CPU_LIMIT)
    assert not account.findings, "\n".join(map(str, account.findings.values()))
    assert _resident() - before < _MEMORY


@pytest.mark.parametrize("name", [name for name in _NAMES if not _known[name].costly])
def test_twice_the_input_costs_twice_the_time(doors: Mapping[str, Door], name: str) -> None:
    account = Account()
    with interruptible():
        check_growth(doors[name], account, _CPU_LIMIT)
    assert not account.findings, "\n".join(map(str, account.findings.values()))


@pytest.mark.parametrize(("power", "found"), [(1, set[str]()), (3, {"steep"})])
def test_growth_that_is_there_each_time_is_found(
    power: int, found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = 0.0

    def enter(data: bytes) -> None:
        nonlocal spent
        spent += (len(data) / 2**15) ** power

    monkeypatch.setattr(time, "process_time", lambda: spent)
    account = Account()
    with interruptible():
        check_growth(Door("planted", enter, seeds=(b"a",)), account, _CPU_LIMIT)
    assert account.findings.keys() == found


def _resident() -> int:
    """The most that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
