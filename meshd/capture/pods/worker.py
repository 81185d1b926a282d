"""Brings one workload with a network namespace of its own from its state to its placement.

The worker pins the namespace, applies and maintains its rules, and repeats its probes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError
from meshd.capture.addresses import Addresses
from meshd.capture.pods import excess, interruption, names, rounds, unprotected
from meshd.capture.pods.limited import OwnLimit
from meshd.capture.pods.namespaces import Pin, Pins, is_elsewhere, moved
from meshd.capture.probes import inbound as inbound_probe
from meshd.capture.probes.outbound import listens, probe
from meshd.capture.rules import apply, fingerprint, inside, replies
from meshd.capture.rules.events import Rules
from meshd.capture.rules.fingerprint import Fingerprint
from meshd.capture.rules.nfnetlink import Change
from meshd.capture.rules.options import CaptureOptions, options_for
from meshd.model.interception import DNS_PORT, OUTBOUND_PORT
from meshd.model.workload import Interruptions, Observation, Placement, Stage, shown
from meshd.settings import CaptureSettings

T = TypeVar("T")

_BACKOFF: Final = Backoff(0.1, 30.0)
_FAILURES_TO_OPEN: Final = 4
"""Failed probes in a row (about a second) until ``failure_policy: open`` removes the rules."""
_LOOK_FOR_PROXY: Final = 0.5
"""Seconds between looks for a proxy that could take an unprotected workload's traffic again."""

_LONGEST_INBOUND: Final = 5.0
"""Seconds that the inbound probe may take; the other results must not wait longer."""

_log = logging.getLogger(__name__)


class Node:
    """The parts that all workloads of a node share."""

    def __init__(
        self,
        settings: CaptureSettings,
        pins: Pins,
        observe: Callable[[str, Observation], None],
        *,
        fail_open: bool,
    ) -> None:
        self.settings = settings
        self.pins = pins
        self.observe = observe
        self.fail_open = fail_open
        # A child spends half of its time waiting for the kernel.
        self.children = asyncio.Semaphore(2 * (os.cpu_count() or 1))


class Worker:
    """Keeps one workload captured."""

    def __init__(self, uid: str, node: Node) -> None:
        self.uid = uid
        self.wanted: Placement | None = None
        self._node = node
        self._wake = asyncio.Event()
        self._stage = Stage.ABSENT
        self._proven = False
        self._problem = ""
        self._pinned = ""
        self._failures = 0
        self._bare: Pin | None = None
        """The pin whose namespace is known to have no rules of meshd."""
        self._applied: tuple[Pin, CaptureOptions, Fingerprint] | None = None
        self._writing = False
        self._noticed = 0.0
        """When another program's change of the rules was noticed (monotonic clock); 0: none was."""
        self._unprotected = False
        self._names = names.Gate()
        self._addresses = Addresses(self._wake.set)
        self._rules = Rules(self._look)
        self._limit = OwnLimit(uid, self._tell_again)
        self._interruptions = Interruptions()
        self._preceding = interruption.Precedence()
        self._unseen = ""
        self._slower = ""
        self._replies = ""
        """Why replies are routed twice, by the rules as they were last looked at."""
        self._again = rounds.Again()
        self._seen: Observation | None = None
        """The observation that was reported last."""

    def want(self, placement: Placement | None) -> None:
        if placement != self.wanted or placement is None:
            self.wanted = placement
            self._failures = 0
            self._wake.set()

    def look_at_legacy(self) -> None:
        if self._rules.has_legacy_tables:
            self._look()

    def _look(self) -> None:
        """Wake the worker if the namespace's rules are no longer those that it has applied."""
        if self._applied is None or self._stage is not Stage.CAPTURED or self._writing:
            return
        pin, _, known = self._applied
        with contextlib.suppress(MeshdError, OSError):
            if fingerprint.of(pin.path) != known:
                self._noticed = self._noticed or time.monotonic()
                self._wake.set()

    def close(self) -> None:
        self._addresses.follow(None)
        self._rules.follow(None)
        self._limit.follow(None)

    def failed(self, problem: str) -> None:
        """Report that ``work`` has failed because of a fault in meshd."""
        self._tell(self._stage, problem=problem, unprotected=self._unprotected)

    async def work(self) -> None:
        """Work until the workload is let go and not wanted again by then."""
        while True:
            self._wake.clear()
            wanted = self.wanted
            try:
                pause = await self._bring_about(wanted)
                if wanted is None and self.wanted is None:
                    return
            except (MeshdError, OSError) as error:
                pause = self._retry_pause()
                self._tell(self._stage, problem=str(error), unprotected=self._unprotected)
            await self._sleep(pause)

    async def _bring_about(self, wanted: Placement | None) -> float | None:
        """Apply the placement. Return the seconds until the next look; None: wait for a change."""
        if wanted is None or wanted.stage is Stage.ABSENT:
            await self._let_go()
            return None
        workload = wanted.workload
        pin = self._node.pins.pin(self.uid, Path(workload.netns), workload.netns_cookie)
        self._pinned = str(pin.path)
        self._addresses.follow(pin)
        self._rules.follow(pin)
        self._limit.follow(pin)
        if self._stage is Stage.ABSENT:
            self._stage = Stage.PINNED
        if wanted.stage is Stage.PINNED:
            await self._uncapture(pin)
            return None
        if self._unprotected and not listens(pin.path):
            return _LOOK_FOR_PROXY
        self._unprotected = False
        node = self._node
        options = options_for(wanted, node.settings, fail_open=node.fail_open)
        await self._capture(pin, self._limit.counted(self._names.options(options)))
        return await self._prove(pin, wanted, options)

    async def _let_go(self) -> None:
        if pin := self._node.pins.find(self.uid):
            await self._uncapture(pin)
        self._node.pins.unpin(self.uid)
        self._bare, self._pinned = None, ""
        self.close()
        self._tell(Stage.ABSENT)

    async def _uncapture(self, pin: Pin) -> None:
        if self._bare != pin:
            self._applied = None
            if not fingerprint.of(pin.path).is_fresh:
                await self._run(pin, apply.remove)
            self._bare = pin
        self._names = names.Gate()
        self._tell(Stage.PINNED)

    async def _capture(self, pin: Pin, options: CaptureOptions) -> None:
        if self._applied == (pin, options, fingerprint.of(pin.path)):
            return
        self._bare = None
        interrupted, changes = None, ()
        if self._applied is not None and self._applied[:2] == (pin, options):
            planned = await self._run(pin, functools.partial(apply.plan, options))
            changes = self._rules.between(self._applied[2], planned.found)
            interrupted = interruption.found(changes, planned.changes, self._noticed)
            if not planned.steps:
                self._replies = planned.replies
                self._precede(planned, changes)
                self._applied, self._noticed = (pin, options, planned.fingerprint), 0.0
                return
            if interrupted:
                self._tell(Stage.CAPTURED, problem=f"{interrupted.text}; putting them back")
        outcome = await self._write(pin, options)
        self._replies = outcome.replies
        if outcome.unlogged:
            self._limit.refuse(outcome.unlogged)
            options = self._limit.counted(options)
        self._applied, self._noticed = (pin, options, outcome.fingerprint), 0.0
        self._precede(outcome, changes)
        if any(step.backend == "legacy" for step in outcome.steps):
            # Otherwise each child would load the module anew, which takes longer than all the rest.
            importlib.import_module("meshd.capture.rules.legacy")
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

    async def _prove(self, pin: Pin, wanted: Placement, options: CaptureOptions) -> float:
        problem = await probe(pin.path, self.uid, ipv6=self._node.settings.ipv6)
        if options.dns and not problem and self._node.fail_open:
            answered = await names.ask(DNS_PORT, pin.path)
            changed = self._names.judge(answered)
            if self._names.is_open:
                return self._open_names(answered, new=changed)
            if changed:
                return 0  # queries go through the mesh again
            problem = answered
        source = Path(wanted.workload.netns)
        replaced = moved(source) if is_elsewhere(pin, source) else ""
        ports = [port.number for port in wanted.workload.ports]
        inbound = inbound_probe.Verdict()
        if not problem:
            inbound = await self._probe_inbound(pin, ports, options)
        told = replaced or problem or inbound.problem or self._preceding.problem
        self._unseen = inbound.unseen
        self._slower = self._replies or replies.set_back(pin.path)
        self._tell(Stage.CAPTURED, proven=not told, problem=told)
        interval = self._node.settings.probe_interval
        if problem and self._node.fail_open and self._failures >= _FAILURES_TO_OPEN:
            if not (own := await self._own_doing(pin, problem)):
                return await self._open(pin, problem)
            self._tell(Stage.CAPTURED, problem=own)
        if problem:
            return min(self._retry_pause(), interval)
        self._failures = 0
        return self._again.after(well=inbound == inbound_probe.Verdict(), interval=interval)

    async def _probe_inbound(
        self, pin: Pin, ports: Sequence[int], options: CaptureOptions
    ) -> inbound_probe.Verdict:
        try:
            async with asyncio.timeout(_LONGEST_INBOUND):
                return await inbound_probe.probe(pin.path, self._addresses.now, ports, options)
        except TimeoutError:
            return inbound_probe.Verdict(
                unseen=f"the inbound probe took more than {_LONGEST_INBOUND:g} s"
            )

    def _open_names(self, problem: str, *, new: bool) -> float:
        self._failures = 0
        text = unprotected.queries(problem)
        if new:
            unprotected.complain(self.uid, text)
        self._tell(Stage.CAPTURED, problem=text, unprotected=True)
        return 0 if new else names.LOOK

    async def _own_doing(self, pin: Pin, problem: str) -> str:
        count = functools.partial(excess.dropped, OUTBOUND_PORT)
        ask = functools.partial(probe, pin.path, self.uid, ipv6=self._node.settings.ipv6)
        return await excess.own_doing(problem, ask, lambda: self._run(pin, count))

    async def _open(self, pin: Pin, problem: str) -> float:
        """Leave the workload unprotected, not cut off. Return the seconds until the next look."""
        await self._run(pin, apply.remove)
        self._applied, self._failures, self._unprotected = None, 0, True
        text = unprotected.traffic(problem)
        unprotected.complain(self.uid, text)
        self._tell(Stage.PINNED, problem=text, unprotected=True)
        return _LOOK_FOR_PROXY

    async def _run(self, pin: Pin, action: Callable[[], T]) -> T:
        async with self._node.children:
            return await inside.run(pin.path, action)

    def _tell(
        self, stage: Stage, *, proven: bool = False, problem: str = "", unprotected: bool = False
    ) -> None:
        fields = {"MESHD_WORKLOAD": self.uid, "MESHD_EVENT": "capture"}
        if problem and problem != self._problem and not unprotected:
            _log.warning("workload %s: %s", shown(self.uid), problem, extra=fields)
        if proven and not self._proven:
            _log.info("workload %s: captured and proven", shown(self.uid), extra=fields)
        self._stage, self._proven, self._problem = stage, proven, problem
        seen = Observation(
            *(self.uid, stage, proven, problem, self._pinned, unprotected, self._addresses.now),
            interruptions=self._interruptions,
            dropped=self._limit.dropped,
            unseen=self._unseen if proven else "",
            slower=self._slower if stage is Stage.CAPTURED else "",
        )
        self._seen = seen
        self._node.observe(self.uid, seen)

    def _tell_again(self, _: str) -> None:
        """Report the last observation again with the present count of dropped connections."""
        if self._seen:
            self._seen = msgspec.structs.replace(self._seen, dropped=self._limit.dropped)
            self._node.observe(self.uid, self._seen)

    def _retry_pause(self) -> float:
        self._failures += 1
        return _BACKOFF.pause(self._failures)

    async def _sleep(self, pause: float | None) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass
