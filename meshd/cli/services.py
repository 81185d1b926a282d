"""What systemd says of the units that are workloads: the daemon knows their slices only."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from meshd import wire
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


def outside(unit: str) -> str:
    return f"{unit} runs outside of the mesh until it is restarted"
