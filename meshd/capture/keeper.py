"""Works through placements: for each workload what is wanted, against what is so.

One task for each workload pins, applies, probes, and repeats the probe; what several do at the
same time in child processes is bounded. Nothing here undoes anything when the process stops or
the mesh role hangs up: the kernel goes on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshd.capture import apply, fingerprint, inside, interruption, names, unprotected
from meshd.capture.addresses import Addresses
from meshd.capture.events import Rules
from meshd.capture.fingerprint import Fingerprint
from meshd.capture.host_keeper import HostKeeper
from meshd.capture.namespaces import Pin, Pins, is_elsewhere, moved
from meshd.capture.nfnetlink import Change
from meshd.capture.options import CaptureOptions, options_for
from meshd.capture.probe import listens, probe
from meshd.errors import MeshdError
from meshd.model.interception import DNS_PORT
from meshd.model.workload import HostService, Interruptions, Observation, Placement, Stage
from meshd.settings import CaptureSettings

_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 30.0
"""Seconds."""
_FAILURES_TO_OPEN: Final = 4
"""Failed probes in a row, in about a second, after which a workload that fails open does."""
_LOOK_FOR_PROXY: Final = 0.5
"""Seconds between looks for a proxy that could take an unprotected workload's traffic again."""
_SETTLE: Final = 3.0
"""Seconds that the first report waits for each workload to have been looked at."""

_HOST_NOTE: Final = "host-captured"
"""Beside the pins' directory."""
_ROUNDS: Final = 4
"""Into which the probes of one interval are gathered: several at one waking cost far less."""

_LOOK: Final = 0.4
"""Seconds between looks at legacy tables, where there are any. The kernel tells of all changes of
others by itself."""

_log = logging.getLogger(__name__)


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
        self.settings = settings
        self.fail_open = fail_open
        self.pins = pins
        # A child waits for the kernel half of its time.
        self.children = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        self._changed = changed
        self._observed: dict[str, Observation] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, _Worker] = {}
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
        """The whole of what is wanted. What is pinned but not wanted is let go; ``host``: so are
        services of the host."""
        wanted = {placement.workload.uid: placement for placement in placements}
        hosted = {uid: one for uid, one in wanted.items() if one.workload.host}
        self._hosted = frozenset(hosted)
        if host:
            self._host.place(hosted)
        wanted = {uid: one for uid, one in wanted.items() if uid not in hosted}
        if not self._settled.is_set():
            asyncio.get_running_loop().call_later(_SETTLE, self._settle)
        self._watch = self._watch or asyncio.create_task(self._watch_for_ever())
        for uid in (*self._workers, *self.pins.list_pins(), *wanted):
            if uid not in self._workers:
                if uid not in wanted:
                    # Left by the last process: there until it is let go.
                    self._observed[uid] = Observation(uid, Stage.PINNED)
                worker = self._workers[uid] = _Worker(uid, self)
                self._tasks[uid] = asyncio.create_task(self._live(worker))
            self._workers[uid].want(wanted.get(uid))
        self._settle_if_complete()

    async def observations(self) -> tuple[Observation, ...]:
        """What is so. The first time, waits until each workload has been looked at.

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
        tasks = [*self._tasks.values(), *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch_for_ever(self) -> None:
        """Legacy rules that somebody has changed are put back now, and not at the next probe."""
        while True:
            await asyncio.sleep(_LOOK)
            for worker in tuple(self._workers.values()):
                worker.look_at_legacy()

    async def _live(self, worker: _Worker) -> None:
        try:
            await worker.work()
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


class _Worker:
    """One workload."""

    def __init__(self, uid: str, keeper: Keeper) -> None:
        self.uid = uid
        self.wanted: Placement | None = None
        self._keeper = keeper
        self._wake = asyncio.Event()
        self._stage = Stage.ABSENT
        self._proven = False
        self._problem = ""
        self._pinned = ""
        self._failures = 0
        self._bare: Pin | None = None
        """The pin in whose namespace nothing of ours was left."""
        self._applied: tuple[Pin, CaptureOptions, Fingerprint] | None = None
        self._writing = False
        self._noticed = 0.0
        """When it was seen that somebody else had changed rules; 0: it was not."""
        self._unprotected = False
        self._names = names.Gate()
        self._addresses = Addresses(self._wake.set)
        self._rules = Rules(self._look)
        self._interruptions = Interruptions()
        self._preceding = interruption.Precedence()

    def want(self, placement: Placement | None) -> None:
        if placement != self.wanted or placement is None:
            self.wanted = placement
            self._failures = 0
            self._wake.set()

    def look_at_legacy(self) -> None:
        if self._rules.has_legacy_tables:
            self._look()

    def _look(self) -> None:
        """Wakes the worker if the namespace's rules are not those that it has left there."""
        if self._applied is None or self._stage is not Stage.CAPTURED or self._writing:
            return
        pin, _, known = self._applied
        with contextlib.suppress(MeshdError, OSError):
            with inside.entered(pin.path):
                now = fingerprint.take()
            if now != known:
                self._noticed = self._noticed or time.monotonic()
                self._wake.set()

    def close(self) -> None:
        self._addresses.follow(None)
        self._rules.follow(None)

    async def work(self) -> None:
        """Until the workload is let go, and not wanted again by then."""
        while True:
            self._wake.clear()
            wanted = self.wanted
            try:
                pause = await self._bring_about(wanted)
                if wanted is None and self.wanted is None:
                    return
            except MeshdError as error:
                pause = self._retry_pause()
                self._tell(self._stage, problem=str(error), unprotected=self._unprotected)
            await self._sleep(pause)

    async def _bring_about(self, wanted: Placement | None) -> float | None:
        """Seconds until it is to be looked at again; None: when something else is wanted."""
        if wanted is None or wanted.stage is Stage.ABSENT:
            await self._let_go()
            return None
        workload = wanted.workload
        pin = self._keeper.pins.pin(self.uid, Path(workload.netns), workload.netns_cookie)
        self._pinned = str(pin.path)
        self._addresses.follow(pin)
        self._rules.follow(pin)
        if self._stage is Stage.ABSENT:
            self._stage = Stage.PINNED
        if wanted.stage is Stage.PINNED:
            await self._uncapture(pin)
            return None
        if self._unprotected and not listens(pin.path):
            return _LOOK_FOR_PROXY
        self._unprotected = False
        keeper = self._keeper
        options = options_for(wanted, keeper.settings, fail_open=keeper.fail_open)
        await self._capture(pin, self._names.options(options))
        return await self._prove(pin, Path(workload.netns), dns=options.dns)

    async def _let_go(self) -> None:
        if pin := self._keeper.pins.find(self.uid):
            await self._uncapture(pin)
        self._keeper.pins.unpin(self.uid)
        self._bare, self._pinned = None, ""
        self.close()
        self._tell(Stage.ABSENT)

    async def _uncapture(self, pin: Pin) -> None:
        if self._bare != pin:
            self._applied = None
            with inside.entered(pin.path):
                untouched = fingerprint.take().is_fresh
            if not untouched:
                await self._run(pin, apply.remove)
            self._bare = pin
        self._names = names.Gate()
        self._tell(Stage.PINNED)

    async def _capture(self, pin: Pin, options: CaptureOptions) -> None:
        with inside.entered(pin.path):
            now = fingerprint.take()
        if self._applied == (pin, options, now):
            return
        self._bare = None
        interrupted, changes = None, ()
        if self._applied is not None and self._applied[:2] == (pin, options):
            planned = await self._run(pin, functools.partial(apply.plan, options))
            changes = self._rules.between(self._applied[2], planned.found)
            interrupted = interruption.found(changes, planned.changes, self._noticed)
            if not interrupted:
                self._precede(planned, changes)
                self._applied, self._noticed = (pin, options, planned.fingerprint), 0.0
                return
            self._tell(Stage.CAPTURED, problem=f"{interrupted.text}; putting them back")
        outcome = await self._write(pin, options)
        self._applied, self._noticed = (pin, options, outcome.fingerprint), 0.0
        self._precede(outcome, changes)
        if any(step.backend == "legacy" for step in outcome.steps):
            # Each child would load it anew, which takes longer than all the rest.
            importlib.import_module("meshd.capture.legacy")
        if interrupted:
            self._count(interrupted.ended())
        if self._stage is not Stage.CAPTURED:
            self._tell(Stage.CAPTURED)
        self._look()

    def _precede(self, outcome: apply.Outcome, changes: tuple[Change, ...]) -> None:
        if ended := self._preceding.become(outcome.foreign, changes):
            self._count(ended)

    def _count(self, ended: interruption.Ended) -> None:
        interruption.say(ended, self.uid)
        self._interruptions = interruption.counted(self._interruptions, ended)

    async def _write(self, pin: Pin, options: CaptureOptions) -> apply.Outcome:
        self._writing = True
        try:
            return await self._run(pin, functools.partial(apply.apply, options))
        finally:
            self._writing = False

    async def _prove(self, pin: Pin, source: Path, *, dns: bool) -> float:
        problem = await probe(pin.path, self.uid, ipv6=self._keeper.settings.ipv6)
        if dns and not problem and self._keeper.fail_open:
            answered = await names.ask(DNS_PORT, pin.path)
            changed = self._names.judge(answered)
            if self._names.is_open:
                return self._open_names(answered, new=changed)
            if changed:
                return 0  # they go through the mesh again
            problem = answered
        replaced = moved(source) if is_elsewhere(pin, source) else ""
        told = replaced or problem or self._preceding.problem
        self._tell(Stage.CAPTURED, proven=not told, problem=told)
        interval = self._keeper.settings.probe_interval
        if problem and self._keeper.fail_open and self._failures >= _FAILURES_TO_OPEN:
            return await self._open(pin, problem)
        if problem:
            return min(self._retry_pause(), interval)
        self._failures = 0
        return _next_round(asyncio.get_running_loop().time(), interval)

    def _open_names(self, problem: str, *, new: bool) -> float:
        self._failures = 0
        text = unprotected.queries(problem)
        if new:
            unprotected.complain(self.uid, text)
        self._tell(Stage.CAPTURED, problem=text, unprotected=True)
        return 0 if new else names.LOOK

    async def _open(self, pin: Pin, problem: str) -> float:
        """Rather unprotected than cut off."""
        await self._run(pin, apply.remove)
        self._applied, self._failures, self._unprotected = None, 0, True
        text = unprotected.traffic(problem)
        unprotected.complain(self.uid, text)
        self._tell(Stage.PINNED, problem=text, unprotected=True)
        return _LOOK_FOR_PROXY

    async def _run(self, pin: Pin, action: Callable[[], apply.Outcome]) -> apply.Outcome:
        async with self._keeper.children:
            return await inside.run(pin.path, action)

    def _tell(
        self, stage: Stage, *, proven: bool = False, problem: str = "", unprotected: bool = False
    ) -> None:
        fields = {"MESHD_WORKLOAD": self.uid, "MESHD_EVENT": "capture"}
        if problem and problem != self._problem and not unprotected:
            _log.warning("workload %s: %s", self.uid, problem, extra=fields)
        if proven and not self._proven:
            _log.info("workload %s: captured and proven", self.uid, extra=fields)
        self._stage, self._proven, self._problem = stage, proven, problem
        seen = Observation(
            *(self.uid, stage, proven, problem, self._pinned, unprotected, self._addresses.now),
            interruptions=self._interruptions,
        )
        self._keeper.observe(self.uid, seen)

    def _retry_pause(self) -> float:
        self._failures += 1
        return min(_FIRST_RETRY * 2**self._failures, _LONGEST_RETRY)

    async def _sleep(self, pause: float | None) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass


def _next_round(now: float, interval: float) -> float:
    """Seconds until the next probe: about ``interval``, spread, at a round that others share."""
    spread = interval * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
    length = interval / _ROUNDS
    return math.ceil((now + spread) / length) * length - now
