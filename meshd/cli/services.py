"""What systemd says of the units that are workloads: the daemon knows their slices only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from meshd import wire
from meshd.discovery.strays import Process, remark, running, strays
from meshd.discovery.systemd import Systemd, Unit
from meshd.errors import SystemRefusedError


def states(rows: Sequence[wire.WorkloadStatus]) -> dict[str, Unit]:
    """By name; nothing where there is no systemd to ask."""
    names = sorted({row.unit for row in rows if row.unit})
    if not names:
        return {}
    try:
        return {unit.asked: unit for unit in Systemd().look_at(names)}
    except SystemRefusedError:
        return {}


def with_bypasses(
    rows: Sequence[wire.WorkloadStatus], found: Mapping[str, Unit]
) -> list[wire.WorkloadStatus]:
    """A slice may be captured and proven while the service runs elsewhere. Pure."""
    return [
        msgspec.structs.replace(row, proven=False, problem=row.problem or outside(row.unit))
        if (unit := found.get(row.unit)) and unit.is_outside
        else row
        for row in rows
    ]


def with_strays(
    rows: Sequence[wire.WorkloadStatus],
    found: Mapping[str, Unit],
    processes: Callable[[], Mapping[int, Process]] = running,
) -> list[wire.WorkloadStatus]:
    """A process that has left the cgroup is outside, however well the others are captured."""
    if not any(row.unit in found for row in rows):
        return list(rows)
    there = processes()
    told = {
        row.uid: remark(strays(there, row.cgroup, unit.user), row.unit)
        for row in rows
        if (unit := found.get(row.unit)) and unit.is_in_slice
    }
    return [
        msgspec.structs.replace(row, proven=False, problem=row.problem or problem)
        if (problem := told.get(row.uid))
        else row
        for row in rows
    ]


def with_gaps(
    rows: Sequence[wire.WorkloadStatus], found: Mapping[str, Unit]
) -> list[wire.WorkloadStatus]:
    """They are in the mesh now, and might not be for a moment after the next boot."""
    return [
        msgspec.structs.replace(row, problem=_gap(unit))
        if (unit := found.get(row.unit)) and not row.problem
        else row
        for row in rows
    ]


def _gap(unit: Unit) -> str:
    """What is not held before it is captured; empty when all is."""
    systemd = Systemd()
    prepared, again = systemd.preparation_of(unit.asked), f"run: meshctl enroll {unit.asked}"
    if not prepared.is_held:
        return f"{unit.asked} is not held before it is captured; {again}"
    if loose := unit.sockets - prepared.sockets:
        with contextlib.suppress(SystemRefusedError):
            for socket in sorted(systemd.on_network(loose)):
                return f"{socket} listens for {unit.asked} before that is captured; {again}"
    return ""


def with_rests(
    rows: Sequence[wire.WorkloadStatus], found: Mapping[str, Unit]
) -> list[wire.WorkloadStatus]:
    """Who is sent something there gets no answer, which is not the mesh's fault. Pure."""
    return [
        msgspec.structs.replace(row, problem=f"{row.unit} does not run: {unit.state}")
        if (unit := found.get(row.unit)) and not (unit.active or row.problem)
        else row
        for row in rows
    ]


def remarks(
    row: wire.WorkloadStatus,
    unit: Unit,
    processes: Callable[[], Mapping[int, Process]] = running,
) -> tuple[str, ...]:
    """What whoever enrolls it is to know, a line each."""
    lines: list[str] = []
    if unit.is_outside:
        lines.append(outside(unit.asked))
    elif left := remark(strays(processes(), row.cgroup, unit.user), unit.asked):
        lines.append(left)
    if unit.properties.get("IPAddressDeny"):
        lines.append(
            f"IPAddressDeny= of {unit.asked} is about its connections to the proxy now, at loopback"
            " addresses, and not about where they lead: allow localhost, and say by policies of the"
            " mesh whom it may reach"
        )
    return tuple(lines)


def outside(unit: str) -> str:
    return f"{unit} runs outside of the mesh until it is restarted"
