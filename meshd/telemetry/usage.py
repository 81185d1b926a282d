"""The usage of workloads, from two looks at the kernel's counters. Pure; ``usage_reading`` looks.

Counters are kept by the thing that counts (a process, an interface, a connection), so that one that
ends, or begins between two looks, never makes a sum go backwards.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable, Iterable, Mapping

Counters = Mapping[Hashable, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One look at one workload; None for values that the kernel does not tell."""

    taken: float
    """Seconds of a clock that never goes back."""
    cpu: Counters = dataclasses.field(default_factory=dict[Hashable, float])
    """Seconds on a core, by process."""
    processes: int = 0
    memory: int = 0
    """Bytes; what processes share is divided among them."""
    disk: int | None = None
    """Bytes that it wrote to what goes with it: its layer, its temporary files."""
    volumes: int | None = None
    """Bytes in directories and file systems that are mounted for it, and stay."""
    connections: int = 0
    """TCP, established, that its own processes hold."""
    received: Counters | None = None
    """Bytes, by interface or connection."""
    sent: Counters | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """One row of ``meshctl top``. In bytes, unless the name says otherwise."""

    namespace: str
    workload: str
    processes: int
    cpu_percent: float
    """100 is one core."""
    memory: int
    disk: int | None
    volumes: int | None
    connections: int
    received: int | None
    """Since its namespace exists; of a service of the host: over the connections it has now."""
    sent: int | None
    received_per_second: float | None
    sent_per_second: float | None


class Order(enum.StrEnum):
    """The column that rows are sorted by, the largest first; names from A to Z."""

    NAME = "name"
    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    CONNECTIONS = "connections"
    TRAFFIC = "traffic"


def compare(namespace: str, workload: str, before: Sample | None, now: Sample) -> Usage:
    """Return the usage since ``before``, an earlier look at the same workload, if there was one."""
    seconds = now.taken - before.taken if before else 0.0
    return Usage(
        namespace=namespace,
        workload=workload,
        processes=now.processes,
        cpu_percent=100 * (_rate(before.cpu if before else None, now.cpu, seconds) or 0.0),
        memory=now.memory,
        disk=now.disk,
        volumes=now.volumes,
        connections=now.connections,
        received=_total(now.received),
        sent=_total(now.sent),
        received_per_second=_rate(before.received if before else None, now.received, seconds),
        sent_per_second=_rate(before.sent if before else None, now.sent, seconds),
    )


def _total(counters: Counters | None) -> int | None:
    return None if counters is None else int(sum(counters.values()))


def _rate(before: Counters | None, now: Counters | None, seconds: float) -> float | None:
    """Return the rate a second; None if one of the two looks has no value."""
    if before is None or now is None or seconds <= 0:
        return None
    # One that is new began after the last look; one that counts less is another of the same name.
    grown = (
        value - earlier if (earlier := before.get(key, 0.0)) <= value else value
        for key, value in now.items()
    )
    return sum(grown) / seconds


def ordered(rows: Iterable[Usage], order: Order) -> list[Usage]:
    by_name = sorted(rows, key=lambda row: (row.namespace, row.workload))
    return sorted(by_name, key=lambda row: -_weight(row, order))


def _weight(row: Usage, order: Order) -> float:
    match order:
        case Order.NAME:
            return 0
        case Order.CPU:
            return row.cpu_percent
        case Order.MEMORY:
            return row.memory
        case Order.DISK:
            return (row.disk or 0) + (row.volumes or 0)
        case Order.CONNECTIONS:
            return row.connections
        case Order.TRAFFIC:
            return (row.received_per_second or 0) + (row.sent_per_second or 0)


def size(amount: float | None) -> str:
    """Format bytes by thousands with about three digits, as docker does: ``512B``, ``1.5kB``,
    ``12.3MB``."""
    if amount is None:
        return ""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            return f"{amount:.3g}{unit}" if amount < 999.5 else f"{amount:.0f}{unit}"
        amount /= 1000
    raise AssertionError("unreachable")
