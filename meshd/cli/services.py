"""Adds the state of units that are workloads, from systemd: the daemon knows only their slices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from meshd import wire
from meshd.base.errors import SystemRefusedError
from meshd.workloads.host import starters
from meshd.workloads.host.systemd import Systemd, Unit
from meshd.workloads.strays import Process, remark, running, strays


def states(rows: Sequence[wire.WorkloadStatus]) -> dict[str, Unit]:
    """Return units by name; an empty mapping if there is no systemd."""
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
    """Add problems of services that run outside their slice, even if it is captured. Pure."""
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
    """Add problems of processes that have left the cgroup of a captured service."""
    if not any(row.unit in found for row in rows):
        return list(rows)
    there = processes()
    told = {
        row.uid: remark(strays(there, row.cgroup, unit.user, row.unit), row.unit)
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
    """Add problems of services that might bypass the mesh for a moment after the next boot."""
    return [
        msgspec.structs.replace(row, problem=_gap(unit))
        if (unit := found.get(row.unit)) and not row.problem
        else row
        for row in rows
    ]


def _gap(unit: Unit) -> str:
    """Return what of a unit is not held before it is captured; empty if all is held."""
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
    """Add problems of services that have ended, and so answer no requests.

    This is not a fault of the mesh. Pure.
    """
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
    """Return a line for each remark to print when the unit is enrolled."""
    lines: list[str] = []
    if unit.is_outside:
        lines.append(outside(unit.asked))
    elif left := remark(strays(processes(), row.cgroup, unit.user, unit.asked), unit.asked):
        lines.append(left)
    if told := starters.remark(unit.asked):
        lines.append(told)
    if unit.properties.get("IPAddressDeny"):
        lines.append(
            f"IPAddressDeny= of {unit.asked} now applies to its connections to the proxy, at "
            "loopback addresses, not to their destinations: allow localhost, and limit "
            "destinations by outbound_policy"
        )
    return tuple(lines)


def outside(unit: str) -> str:
    return f"{unit} bypasses the mesh until it is restarted"
