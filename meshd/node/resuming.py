"""Restarts services of the host that failed when they were started before the mesh could serve
them.

See ``workloads.host.held_starts``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Final

from meshd.base import journal, tasks
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError
from meshd.capture.rules import inside
from meshd.model.workload import HostService
from meshd.workloads.host.held_starts import HeldStarts, Step, next_step
from meshd.workloads.host.hold_units import hold_of
from meshd.workloads.host.systemd import Systemd

_BACKOFF: Final = Backoff(0.5, 10.0)
"""Between looks at a unit that is still being started."""
_log = logging.getLogger(__name__)


class Resuming:
    def __init__(self, starts: HeldStarts) -> None:
        self._starts = starts
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def served(self, host: HostService) -> None:
        """Note that the mesh serves a service now; may be repeated."""
        if host.unit and host.unit not in self._tasks and self._starts.has(host.unit):
            self._tasks[host.unit] = tasks.start(self._see_to(host.unit), f"resuming {host.unit}")

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _see_to(self, unit: str) -> None:
        looks = 0
        try:
            while (step := await self._look(unit)) is Step.WAIT:
                looks += 1
                await asyncio.sleep(_BACKOFF.pause(looks))
            self._starts.forget(unit)
            if step is Step.START:
                text = "%s failed to start while it was held; it is started again"
                journal.event(_log, logging.WARNING, "resumed", text, unit)
                await inside.run_in_host(functools.partial(_start_again, unit))
        except (MeshdError, OSError) as error:
            journal.event(_log, logging.ERROR, "resumed", "%s", error)
        finally:
            del self._tasks[unit]

    async def _look(self, unit: str) -> Step:
        both = (unit, hold_of(unit))
        return next_step(*await inside.run_in_host(functools.partial(Systemd().look_at, both)))


def _start_again(unit: str) -> None:
    """Start a unit with the sockets that were held and failed with it."""
    systemd = Systemd()
    systemd.start_again(unit, *systemd.look(unit).sockets)
