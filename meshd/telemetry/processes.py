"""The cost of each process of meshd, from the kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import psutil


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    resident: int
    """Bytes."""
    cpu: float
    """Seconds on a core, since it started."""


def measure(pids: Iterable[int]) -> Mapping[int, Cost]:
    """Measure the processes that run; one that is gone is left out."""
    costs: dict[int, Cost] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            costs[pid] = Cost(process.memory_info().rss, times.user + times.system)
        except psutil.Error:
            continue
    return costs
