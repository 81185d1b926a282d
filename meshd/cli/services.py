"""What systemd says of the units that are workloads: the daemon knows their slices only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from meshd import wire
from meshd.discovery import units
from meshd.errors import SystemRefusedError


def states(rows: Sequence[wire.WorkloadStatus]) -> dict[str, units.Unit]:
    """By name; nothing where there is no systemd to ask."""
    names = sorted({row.unit for row in rows if row.unit})
    if not names:
        return {}
    try:
        return {unit.name: unit for unit in units.Systemd().look_at(names)}
    except SystemRefusedError:
        return {}


def with_bypasses(
    rows: Sequence[wire.WorkloadStatus], found: Mapping[str, units.Unit]
) -> list[wire.WorkloadStatus]:
    """A slice may be captured and proven while the service runs elsewhere. Pure."""
    return [
        msgspec.structs.replace(row, proven=False, problem=row.problem or outside(row.unit))
        if (unit := found.get(row.unit)) and unit.is_outside
        else row
        for row in rows
    ]


def with_rests(
    rows: Sequence[wire.WorkloadStatus], found: Mapping[str, units.Unit]
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
