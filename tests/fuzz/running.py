"""Many inputs at one door, in a process whose memory is bounded."""

from __future__ import annotations

import itertools
import logging
import random
import resource
import sys
import time
from typing import Final

from tests.fuzz.door import Account, check_growth, inputs, interruptible, judge
from tests.fuzz.table import table

_MEMORY: Final = 2 * 1024**3
"""Bytes of address space; above it, an input raises MemoryError."""
HEAD: Final = "door                   inputs  refused  µs each  slowest   MiB"


def run(name: str, count: int, seconds: float, seed: int) -> None:
    """Print what is found, at once, and a line at the end. Ends the process: with 1 if anything
    was."""
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    account = Account()
    with table() as doors, interruptible():
        door = doors[name]
        before, began = _resident(), time.process_time()
        rng = random.Random(seed)  # noqa: S311 - the same inputs each time
        for data in itertools.islice(inputs(door, rng), count):
            known = len(account.findings)
            judge(door, data, account)
            if len(account.findings) > known:
                print(f"    {[*account.findings.values()][-1]}", flush=True)
            if time.process_time() - began > seconds:
                break
        each = (time.process_time() - began) / account.inputs * 1e6
        found = set(account.findings)
        check_growth(door, account)
    for what in account.findings.keys() - found:
        print(f"    {account.findings[what]}", flush=True)
    print(
        f"{name:20} {account.inputs:8} {account.refused:8} {each:8.0f} {account.slowest:7.3f}s"
        f" {_resident() - before:5}",
        flush=True,
    )
    sys.exit(1 if account.findings else 0)


def _resident() -> int:
    """The most that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
