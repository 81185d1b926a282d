"""Changes systemd's units for the mesh role: the capture role is root, and the mesh role is not.

Whoever asks has fewer privileges than whoever does it. So the request names a unit only, none that
the host needs to be reached, and nothing else of what is written comes from it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.base.threads import in_thread
from meshd.workloads.host import preparation
from meshd.workloads.host.systemd import Systemd, Unit
from meshd.workloads.host.units import is_needed, unit_name


class UnitChanges:
    """The changes, one after the other: systemd reads all its files again for each."""

    def __init__(self, systemd: Callable[[], Systemd] = Systemd) -> None:
        self._systemd = systemd
        self._lock = asyncio.Lock()

    async def change(self, request: wire.UnitRequest) -> wire.UnitChanged:
        """Raises SystemRefusedError, InvalidInputError."""
        if unit_name(request.unit) != request.unit:
            raise InvalidInputError(f"{request.unit!r} is not the full name of a unit")
        await self._lock.acquire()
        change = in_thread("changing a unit", functools.partial(self._change, request))
        # The thread goes on when whoever waits for it is cancelled.
        change.add_done_callback(lambda _: self._lock.release())
        return wire.UnitChanged(await asyncio.shield(change))

    def _change(self, request: wire.UnitRequest) -> tuple[str, ...]:
        systemd, unit = self._systemd(), request.unit
        match request:
            case wire.PrepareUnit():
                found = systemd.look(unit)
                refuse_needed(found)
                if not found.exists:
                    raise InvalidInputError(f"systemd has not loaded {unit}: {found.load_state}")
                return preparation.prepare(systemd, (unit,))
            case wire.RestoreUnit():
                systemd.undo(unit)
            case wire.RestartUnit(run=run, inside=inside):
                found = systemd.look(unit)
                refuse_needed(found)
                if is_to_restart(found, run, inside=inside):
                    systemd.restart(unit)
            case wire.StopSlice():
                systemd.stop_slice(unit)
        return ()


def refuse_needed(unit: Unit) -> None:
    """Raises InvalidInputError if the host needs the unit, by whichever of its names. Pure."""
    if needed := sorted(filter(is_needed, unit.names)):
        raise InvalidInputError(
            f"{unit.asked} is {needed[0]}, which is never captured: the host itself would depend"
            " on the mesh"
        )


def is_to_restart(unit: Unit, run: str, *, inside: bool) -> bool:
    """Return whether a unit has to be restarted: it runs as before, or where it should not. Pure.

    Nobody restarts a unit whose file is gone.
    """
    if not (unit.exists and unit.active):
        return False
    is_misplaced = unit.is_outside if inside else unit.is_in_slice
    return is_misplaced or (bool(run) and unit.run == run)
