"""Memory and idle CPU of all the node's processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from tests.bench.figures import Json
from tests.bench.node import Node, Process, pool, roles

KIB: Final = 1024
MIB: Final = 1024 * KIB
_MOMENT: Final = 1.0
_RESTLESS: Final = 8.0
"""Seconds."""
_REST: Final = 0.005
"""Change of allocated memory, as a part of it."""


def memory(node: Node, workloads: int, services: int) -> Json:
    """Sizes in bytes, when what was left of the last change is gone."""
    processes = _settled(node)
    return {
        "workloads": workloads,
        "services": services,
        "unit": "bytes",
        "processes": [
            {
                "name": process.name,
                "resident": process.resident,
                "proportional": process.proportional,
                "private": process.private,
                "allocated": process.allocated,
            }
            for process in processes
        ],
        "python": _sum(roles(processes)),
        "pool": _sum(pool(processes)),
    }


def _settled(node: Node) -> tuple[Process, ...]:
    """When the proxies have as much as a moment before, or do not come to rest."""
    before, after = 0, node.processes()
    end = time.monotonic() + _RESTLESS
    while time.monotonic() < end:
        allocated = sum(process.allocated for process in after)
        if abs(allocated - before) < _REST * allocated:
            break
        time.sleep(_MOMENT)
        before, after = allocated, node.processes()
    return after


def _sum(processes: Iterable[Process]) -> Json:
    found = tuple(processes)
    return {
        "resident": sum(process.resident for process in found),
        "proportional": sum(process.proportional for process in found),
        "private": sum(process.private for process in found),
        "allocated": sum(process.allocated for process in found),
    }


def idle(node: Node, workloads: int, seconds: float) -> Json:
    """Percent of a core that is used while nothing happens."""
    before = {process.name: process.cpu for process in node.processes()}
    start = time.monotonic()
    time.sleep(seconds)
    after = node.processes()
    passed = time.monotonic() - start
    used = {process.name: 100 * (process.cpu - before[process.name]) / passed for process in after}
    return {
        "workloads": workloads,
        "seconds": passed,
        "unit": "% of a core",
        "processes": used,
        "python": sum(used[process.name] for process in roles(after)),
        "pool": sum(used[process.name] for process in pool(after)),
    }


def per_workload(rows: Sequence[Json], few: int, many: int) -> float:
    """Bytes of the whole pool for one more workload, between two of the rows with few services."""
    base = min(row["services"] for row in rows)
    sizes = {row["workloads"]: row["pool"]["private"] for row in rows if row["services"] == base}
    return (sizes[many] - sizes[few]) / (many - few)


def product(rows: Sequence[Json], few: int, many: int, services: int) -> float:
    """Bytes of the pool for one workload and one service together, beyond what each costs.

    What services cost among many workloads, less what they cost among few. 0 where memory grows
    with the sum and not with the product.
    """
    sizes = {(row["workloads"], row["services"]): row["pool"]["allocated"] for row in rows}
    base = min(row["services"] for row in rows)
    added_many = sizes[many, services] - sizes[many, base]
    added_few = sizes[few, services] - sizes[few, base]
    return (added_many - added_few) / ((many - few) * (services - base))
