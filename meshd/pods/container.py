"""Keeps one container running: starts it, probes it, restarts it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd.base import tasks
from meshd.base.errors import SystemRefusedError
from meshd.model.pod import ContainerPlan, ContainerState
from meshd.pods import launch, probe, processes
from meshd.pods.readiness import Readiness, Restarts

MAX_LOG: Final = 16 * 1024 * 1024
"""Bytes of a container's log; a longer one starts anew."""
_ALIVE: Final = 0.2
"""Seconds that a process without a probe must have run to be ready: what crashes, crashes early."""
_STATUS: Final = "ended with status {}"
_WELL: Final = _STATUS.format(0)


class Container:
    """One container; ``changed`` is called when its state has changed."""

    def __init__(
        self, plan: ContainerPlan, task: launch.Task, log: Path, changed: Callable[[], None]
    ) -> None:
        self.plan = plan
        self._task = task
        self._log = log
        self._changed = changed
        self._state = ContainerState(name=plan.name, state="Waiting", log=str(log))

    @property
    def state(self) -> ContainerState:
        return self._state

    def _become(self, state: str, *, pid: int = 0, ready: bool = False, restarts: int = 0) -> None:
        new = ContainerState(
            name=self.plan.name,
            state=state,
            pid=pid,
            ready=ready,
            restarts=self._state.restarts + restarts,
            log=str(self._log),
        )
        if new != self._state:
            self._state = new
            self._changed()

    async def complete(self) -> None:
        """Run it until it ends well, as an init container does."""
        restarts = Restarts()
        while True:
            began = time.monotonic()
            how = await self._live("")
            if how == _WELL:
                self._become("Completed", ready=True)
                return
            restarts = await self._wait(how, restarts, began)

    async def keep(self, address: str) -> None:
        """Run it for ever. Cancelling ends it."""
        restarts = Restarts()
        while True:
            began = time.monotonic()
            how = await self._live(address)
            restarts = await self._wait(how, restarts, began)

    async def _wait(self, how: str, restarts: Restarts, began: float) -> Restarts:
        restarts = restarts.after(time.monotonic() - began)
        self._become(f"{how}, starts again in {restarts.pause:g} s", restarts=1)
        await asyncio.sleep(restarts.pause)
        return restarts

    async def _live(self, probed: str) -> str:
        """Run the container and its probes, if there is an address to probe; return how it
        ended."""
        try:
            pid = launch.start(self._task, self._log)
        except SystemRefusedError as error:
            return str(error)
        self._become("Running", pid=pid)
        watching = self._probing(pid, probed) if probed else None
        try:
            status = await processes.ended(pid)
            return f"was killed by signal {-status}" if status < 0 else _STATUS.format(status)
        except asyncio.CancelledError:
            await processes.end(pid)
            raise
        finally:
            if watching:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching

    def _probing(self, pid: int, address: str) -> asyncio.Task[None]:
        return tasks.keep(lambda: self._probe(pid, address), f"the probe of {self.plan.name}")

    async def _probe(self, pid: int, address: str) -> None:
        asked = self.plan.readiness
        if asked is None:
            await asyncio.sleep(_ALIVE)
            self._become("Running", pid=pid, ready=True)
            return
        await asyncio.sleep(asked.initial_delay_seconds)
        readiness = Readiness()
        while True:
            passed = await probe.passes(asked, address, pid, self._task.user)
            readiness = readiness.after(passed, asked)
            self._become("Running", pid=pid, ready=readiness.ready)
            await asyncio.sleep(readiness.pause(asked))

    def trim_log(self) -> None:
        """Cut the log: the process appends, so that it goes on from the beginning."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > MAX_LOG:
                with self._log.open("r+b") as log:
                    log.truncate()
