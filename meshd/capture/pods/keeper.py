"""Brings workloads to their placements, and reports what it observes.

One task for each workload pins, applies, probes, and repeats the probe; concurrent work in child
processes is bounded. Nothing here undoes anything when the process stops or the mesh role
disconnects: the kernel goes on as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.base import tasks
from meshd.capture.host.keeper import HostKeeper
from meshd.capture.pods.namespaces import Pins
from meshd.capture.pods.worker import Node, Worker
from meshd.model.workload import HostService, Observation, Placement, Stage
from meshd.settings import CaptureSettings

_SETTLE: Final = 3.0
"""Seconds that the first report waits for each workload to have been looked at."""

_HOST_NOTE: Final = "host-captured"
"""Beside the pins' directory."""
_LOOK: Final = 0.4
"""Seconds between looks at legacy tables, where there are any. The kernel tells of all changes of
others by itself."""


class Keeper:
    """All workloads of the node. ``changed`` is called when ``observations`` has news; ``served``
    and ``bypasses``: see ``HostKeeper``."""

    def __init__(
        self,
        settings: CaptureSettings,
        pins: Pins,
        changed: Callable[[], None] = lambda: None,
        *,
        fail_open: bool = False,
        served: Callable[[HostService], None] = lambda _: None,
        bypasses: Callable[[Mapping[str, HostService]], Mapping[str, str]] = lambda _: {},
        proxy_user: int = 0,
    ) -> None:
        self._node = Node(settings, pins, self.observe, fail_open=fail_open)
        self._pins = pins
        self._changed = changed
        self._observed: dict[str, Observation] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, Worker] = {}
        self._settled = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._hosted: frozenset[str] = frozenset()
        note = pins.directory.with_name(_HOST_NOTE)
        self._host = HostKeeper(
            settings,
            note,
            self.observe,
            fail_open=fail_open,
            served=served,
            bypasses=bypasses,
            proxy_user=proxy_user,
        )

    def place(self, placements: Sequence[Placement], *, host: bool = True) -> None:
        """Take all placements that are wanted; pins without one are released.

        ``host``: so are services of the host.
        """
        wanted = {placement.workload.uid: placement for placement in placements}
        hosted = {uid: one for uid, one in wanted.items() if one.workload.host}
        self._hosted = frozenset(hosted)
        if host:
            self._host.place(hosted)
        wanted = {uid: one for uid, one in wanted.items() if uid not in hosted}
        if not self._settled.is_set():
            asyncio.get_running_loop().call_later(_SETTLE, self._settle)
        self._watch = self._watch or tasks.keep(self._watch_for_ever, "looking at legacy rules")
        for uid in (*self._workers, *self._pins.list_pins(), *wanted):
            if uid not in self._workers:
                if uid not in wanted:
                    # Left by the last process: there until it is let go.
                    self._observed[uid] = Observation(uid, Stage.PINNED)
                worker = self._workers[uid] = Worker(uid, self._node)
                self._tasks[uid] = tasks.start(self._live(worker), f"capturing {uid}")
            self._workers[uid].want(wanted.get(uid))
        self._settle_if_complete()

    async def observations(self) -> tuple[Observation, ...]:
        """Return the observations; the first time, wait until each workload has been looked at.

        Otherwise a restart would read as if nothing were captured.
        """
        await self._settled.wait()
        return tuple(self._observed.values())

    def observe(self, uid: str, observation: Observation | None) -> None:
        before = self._observed.get(uid)
        if observation is None:
            self._observed.pop(uid, None)
        else:
            self._observed[uid] = observation
        self._settle_if_complete()
        if before != observation:
            self._changed()

    async def close(self) -> None:
        """Stop working; leave everything as it is."""
        await self._host.close()
        running = [*self._tasks.values(), *([self._watch] if self._watch else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _watch_for_ever(self) -> None:
        """Look at legacy rules, so that foreign changes are undone now, and not at the next
        probe."""
        while True:
            await asyncio.sleep(_LOOK)
            for worker in tuple(self._workers.values()):
                worker.look_at_legacy()

    async def _live(self, worker: Worker) -> None:
        try:
            await tasks.keep(worker.work, f"capturing {worker.uid}", worker.failed)
        finally:
            worker.close()
            del self._workers[worker.uid], self._tasks[worker.uid]
        self.observe(worker.uid, None)

    def _settle_if_complete(self) -> None:
        uids = {uid for uid, worker in self._workers.items() if worker.wanted} | self._hosted
        if uids <= self._observed.keys():
            self._settle()

    def _settle(self) -> None:
        if not self._settled.is_set():
            self._settled.set()
            self._changed()
