"""Services of the host that were started when the mesh could not serve them, and their next steps.

They start all the same, with their traffic dropped. Some fail then: they need a peer to be ready,
and systemd gives up after ``TimeoutStartSec`` or a few attempts. Nobody else would start those
again.
"""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.workloads.host.systemd import Unit
from meshd.workloads.host.units import unit_name


class Step(enum.Enum):
    """The next step for a unit that was started too early and can be served now."""

    START = "start"
    WAIT = "wait"
    """It is still at it."""
    LEAVE = "leave"


def next_step(unit: Unit, hold: Unit) -> Step:
    """Return the step, which never starts what an administrator has stopped.

    When its hold has failed, systemd did not even try to start the unit, so that it does not count
    as failed itself.
    """
    match unit.state:
        case "failed":
            return Step.START
        case "inactive" if hold.state == "failed":
            return Step.START
        case "inactive" if hold.active:
            return Step.WAIT
        case "activating" | "deactivating" | "reloading":
            return Step.WAIT
        case _:
            return Step.LEAVE


@dataclasses.dataclass(frozen=True, slots=True)
class HeldStarts:
    """Notes: an empty file for each unit, written by root."""

    directory: Path

    def note(self, unit: str) -> None:
        """Raises SystemRefusedError, InvalidInputError."""
        path = self._path(unit)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None

    def forget(self, unit: str) -> None:
        self._path(unit).unlink(missing_ok=True)

    def has(self, unit: str) -> bool:
        try:
            return self._path(unit).exists()
        except MeshdError:
            return False  # no name of a service that could have been started

    def _path(self, unit: str) -> Path:
        return self.directory / unit_name(unit)
