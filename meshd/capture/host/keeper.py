"""Captures the host's own services: all of them with one set of rules, so one task for all.

Does for workloads that share the host's namespace what ``keeper`` does for those that have one of
their own. It touches nothing until the first of them is placed; a note in the run directory tells
the next process that there are rules to be taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd.base import own_addresses
from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.capture.host import cgroups
from meshd.capture.host.hosted import host_workload, without_conflicts
from meshd.capture.host.rules import HostWorkload
from meshd.capture.pods import excess, interruption, names, unprotected
from meshd.capture.pods.limited import Limited
from meshd.capture.probes import inbound as inbound_probe
from meshd.capture.probes.inbound import Verdict
from meshd.capture.probes.outbound import listens_here, probe_here
from meshd.capture.probes.outpost import Outpost
from meshd.capture.rules import apply, fingerprint, inside, locks
from meshd.capture.rules.apply import HostCapture
from meshd.capture.rules.events import RuleEvents
from meshd.capture.rules.fingerprint import Fingerprint
from meshd.model.workload import (
    DroppedConnections,
    HostService,
    Interruptions,
    Observation,
    Placement,
    Stage,
)
from meshd.settings import CaptureSettings

_LOOK: Final = 0.2
"""Seconds between looks at the cgroups, some microseconds for each, and at legacy tables."""
_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 10.0
"""Seconds between attempts while something is wrong."""
_FAILURES_TO_OPEN: Final = 4
"""Failed probes in a row after which a service that fails open does."""
_PROBES_AT_ONCE: Final = 4

_log = logging.getLogger(__name__)


class HostKeeper:
    """``observe`` is told what is so for a workload, or that it is let go; ``served``, at each look
    that finds it so, that one is proven. ``bypasses`` says what of which service is outside of its
    cgroup, where no rule of ours sees it. ``proxy_user``: see ``HostWorkload``."""

    def __init__(
        self,
        settings: CaptureSettings,
        note: Path,
        observe: Callable[[str, Observation | None], None],
        *,
        fail_open: bool = False,
        served: Callable[[HostService], None] = lambda _: None,
        bypasses: Callable[[Mapping[str, HostService]], Mapping[str, str]] = lambda _: {},
        proxy_user: int = 0,
    ) -> None:
        self._settings = settings
        self._fail_open = fail_open
        self._failures: Counter[str] = Counter()
        self._unprotected: set[str] = set()
        self._names: defaultdict[str, names.Gate] = defaultdict(names.Gate)
        self._probing = asyncio.Semaphore(_PROBES_AT_ONCE)
        self._note = note
        self._observe = observe
        self._served = served
        self._bypasses = bypasses
        self._proxy_user = proxy_user
        self._outside: Mapping[str, str] = {}
        """What is said of those that are proven but for processes which have left the cgroup."""
        self._wanted: dict[str, Placement] = {}
        self._told: dict[str, Observation] = {}
        self._wake = asyncio.Event()
        self._claim: locks.Claim | None = None
        self._applied: tuple[HostCapture, Fingerprint] | None = None
        self._doubted = False
        """A probe failed: whatever the fingerprint says, the rules are to be looked at."""
        self._events: RuleEvents | None = None
        self._routing: own_addresses.Watch | None = None
        self._limited: Limited | None = None
        self._writing = False
        self._noticed = 0.0
        """When it was seen that somebody else had changed rules; 0: it was not."""
        self._interruptions = Interruptions()
        self._preceding = interruption.Precedence()
        self._outpost = Outpost()
        self._task: asyncio.Task[None] | None = None

    def place(self, placements: Mapping[str, Placement]) -> None:
        """The whole of what is wanted of the host's own services."""
        if self._task is None and (placements or self._note.exists()):
            self._task = asyncio.create_task(self._work())
        if placements != self._wanted:
            self._wanted = dict(placements)
            self._wake.set()

    async def close(self) -> None:
        """Stop working; leave everything as it is."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._events:
            self._events.close()
        if self._routing:
            self._routing.close()
        if self._limited:
            self._limited.close()
        self._outpost.close()
        if self._claim:
            self._claim.release()

    # ---- the task

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        self._events = RuleEvents(self._look)
        self._routing = own_addresses.Watch(self._look, rules=True)
        self._limited = Limited(self._tell_again)
        pause: float = _FIRST_RETRY
        while True:
            self._wake.clear()
            found, problems = self._find()
            try:
                await self._capture(found)
            except (MeshdError, OSError) as error:
                problems |= dict.fromkeys(self._wanted, str(error))
            try:
                await self._tell(found, problems)
            except (MeshdError, OSError) as error:
                self._doubt(str(error))
            self._doubted = not (well := self._is_well)
            longest = names.LOOK if self._names_open else _LONGEST_RETRY
            pause = _FIRST_RETRY if well else min(pause * 2, longest)
            until = loop.time() + (self._settings.probe_interval if well else pause)
            while loop.time() < until and not self._wake.is_set():
                if self._find()[0] != found:
                    break  # a cgroup came or went
                if self._events.has_legacy_tables:
                    self._look()
                await self._sleep(min(_LOOK, until - loop.time()))

    def _look(self) -> None:
        """Wakes the task if somebody else has changed rules."""
        if self._applied and not self._writing and self._applied[1] != fingerprint.take():
            self._noticed = self._noticed or time.monotonic()
            self._wake.set()

    @property
    def _is_well(self) -> bool:
        """Nothing is wrong with the rules and the proxies."""
        captured = (seen for seen in self._told.values() if seen.stage is Stage.CAPTURED)
        return all(seen.proven or seen.uid in self._outside for seen in captured)

    async def _sleep(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _find(self) -> tuple[HostCapture, dict[str, str]]:
        """What is to be done with the services whose cgroups are there, and what is wrong."""
        captured: list[HostWorkload] = []
        waiting: list[HostWorkload] = []
        problems: dict[str, str] = {}
        before = {one.uid: one for one in self._applied[0].workloads} if self._applied else {}
        for uid, placement in sorted(self._wanted.items()):
            try:
                one = host_workload(placement, self._settings, self._proxy_user)
                if self._stays_open(one):
                    continue
                one = dataclasses.replace(one, options=self._names[uid].options(one.options))
            except MeshdError as error:
                problems[uid] = str(error)
                closed = before.get(uid) or self._without_wishes(placement)
                if closed is None:
                    continue
                one = closed  # better than open
            (captured if placement.stage is Stage.CAPTURED else waiting).append(one)
        settings = self._settings
        alone, conflicts = without_conflicts(captured)
        alone = self._limited.counted(alone) if self._limited else alone
        capture = HostCapture(alone, tuple(waiting), settings.backend, settings.ipv6)
        return capture, problems | conflicts

    def _without_wishes(self, placement: Placement) -> HostWorkload | None:
        """Captured as if it had no annotations, which may be what is wrong with it."""
        if placement.stage is not Stage.CAPTURED:
            return None
        bare = msgspec.structs.replace(placement.workload, annotations={})
        with contextlib.suppress(MeshdError):
            placement = msgspec.structs.replace(placement, workload=bare)
            return host_workload(placement, self._settings, self._proxy_user)
        return None

    def _stays_open(self, one: HostWorkload) -> bool:
        if one.uid in self._unprotected and listens_here(one.outbound_port):
            self._unprotected.discard(one.uid)
        return one.uid in self._unprotected

    async def _capture(self, wanted: HostCapture) -> None:
        if self._applied == (wanted, fingerprint.take()) and not self._doubted:
            return
        self._claim_host()
        self._write_note(wanted)
        before = self._applied
        outcome = await self._write(wanted)
        changes = self._events.between(before[1], outcome.found) if before and self._events else ()
        if ended := self._preceding.become(outcome.foreign, changes):
            self._count_interruption(ended)
        again = before and before[0] == wanted
        found = interruption.found(changes, outcome.changes, self._noticed) if again else None
        if found:
            self._count_interruption(found.ended())
        self._applied, self._noticed = (wanted, outcome.fingerprint), 0.0
        self._look()
        if not self._wanted:
            self._note.unlink(missing_ok=True)

    async def _write(self, wanted: HostCapture) -> apply.Outcome:
        self._writing = True
        try:
            return await inside.run_in_host(functools.partial(apply.apply_host, wanted))
        finally:
            self._writing = False

    def _count_interruption(self, ended: interruption.Ended) -> None:
        self._interruptions = interruption.counted(self._interruptions, ended)
        self._doubt(ended.text)

    def _doubt(self, problem: str) -> None:
        """Until they are probed again, the services are not said to be in the mesh."""
        for uid, seen in tuple(self._told.items()):
            if seen.stage is Stage.CAPTURED:
                self._say(uid, msgspec.structs.replace(seen, proven=False, problem=problem))

    def _write_note(self, wanted: HostCapture) -> None:
        """For the next process, and for whoever must not believe what else is said of them."""
        captured = {one.uid: one.cgroup for one in (*wanted.workloads, *wanted.waiting)}
        for uid in self._unprotected & self._wanted.keys():
            if host := self._wanted[uid].workload.host:
                captured[uid] = host.cgroup
        new = self._note.with_name(f".{self._note.name}.new")
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(captured))
        new.replace(self._note)

    def _claim_host(self) -> None:
        """Raises SystemRefusedError when another meshd has it."""
        self._claim = self._claim or locks.Claim(locks.KEEPER)
        if not self._claim.take():
            raise SystemRefusedError(
                "another meshd captures services in this network namespace; only one can"
            )

    # ---- what is so

    async def _tell(self, found: HostCapture, problems: Mapping[str, str]) -> None:
        applied = self._applied[0] if self._applied else HostCapture()
        captured = {one.uid: one for one in applied.workloads}
        for uid in self._told.keys() - self._wanted.keys():
            self._unprotected.discard(uid)
            self._names.pop(uid, None)
            if uid not in captured:
                self._say(uid, None)
        probed = [uid for uid in captured if uid in self._wanted and not problems.get(uid)]
        # One after the other would take each that fails some seconds.
        answers = await asyncio.gather(*(self._probe(captured[uid]) for uid in probed))
        wrong = {**problems, **dict(zip(probed, answers, strict=True))}
        asked = [uid for uid in probed if not wrong[uid] and self._fail_open]
        unanswered = await asyncio.gather(*(self._look_up(captured[uid]) for uid in asked))
        mute = dict(zip(asked, unanswered, strict=True))
        sent = await self._send(captured[uid] for uid in probed if not wrong[uid])
        self._outside = await self._look_outside(uid for uid in probed if not wrong[uid])
        for uid in sorted(self._wanted):
            problem = wrong.get(uid, "")
            if uid in captured:
                seen = self._captured(uid, problem, mute.get(uid, ""), sent.get(uid, Verdict()))
                self._say(uid, seen)
                await self._count(captured[uid], problem if captured[uid].cgroup_id else "")
                host = self._wanted[uid].workload.host
                if host and (seen.proven or uid in self._outside):
                    self._served(host)
            elif uid not in self._unprotected:
                self._say(uid, Observation(uid, Stage.PINNED, problem=problem))

    def _captured(self, uid: str, problem: str, unanswered: str, inbound: Verdict) -> Observation:
        if unanswered and uid in self._names_open:
            text = unprotected.queries(unanswered)
            return Observation(uid, Stage.CAPTURED, problem=text, unprotected=True)
        problem = problem or unanswered or inbound.problem or self._preceding.problem
        problem = problem or self._outside.get(uid, "")
        return Observation(uid, Stage.CAPTURED, not problem, problem, unseen=inbound.unseen)

    async def _send(self, ones: Iterable[HostWorkload]) -> Mapping[str, Verdict]:
        """Return what the inbound probes have shown, by uid."""
        if not self._wanted:
            self._outpost.close()
        return await inbound_probe.probe_each(self._outpost, own_addresses.preferred(), tuple(ones))

    async def _look_outside(self, uids: Iterable[str]) -> Mapping[str, str]:
        hosts = {uid: self._wanted[uid].workload.host for uid in uids}
        services = {uid: host for uid, host in hosts.items() if host}
        return await asyncio.to_thread(self._bypasses, services) if services else {}

    async def _look_up(self, one: HostWorkload) -> str:
        """Its DNS alone may be dead. Returns what is wrong with it."""
        gate = self._names[one.uid]
        if not (one.options.dns or gate.is_open):
            return ""
        problem = await names.ask(one.outbound_port)
        if gate.judge(problem):
            self._wake.set()
            if gate.is_open:
                unprotected.complain(one.uid, unprotected.queries(problem))
        return problem

    @property
    def _names_open(self) -> set[str]:
        return {uid for uid, gate in self._names.items() if gate.is_open}

    async def _count(self, one: HostWorkload, problem: str) -> None:
        """Rather unprotected than cut off, where the policy says so."""
        uid = one.uid
        self._failures[uid] = self._failures[uid] + 1 if problem else 0
        if not self._fail_open or self._failures[uid] < _FAILURES_TO_OPEN:
            return
        count = functools.partial(excess.dropped, one.outbound_port)
        asked = await excess.own_doing(
            problem, functools.partial(self._probe, one), lambda: inside.run_in_host(count)
        )
        if asked:
            self._say(uid, Observation(uid, Stage.CAPTURED, problem=asked))
            return
        self._unprotected.add(uid)
        self._failures[uid] = 0
        text = unprotected.traffic(problem)
        unprotected.complain(uid, text)
        self._say(uid, Observation(uid, Stage.PINNED, problem=text, unprotected=True))
        self._wake.set()

    async def _probe(self, one: HostWorkload) -> str:
        if not one.cgroup_id:
            return f"cgroup {one.cgroup} not found: the service does not run"

        def ask() -> str:
            with cgroups.visited(one.cgroup):
                return probe_here(one.uid, ipv6=one.options.ipv6)

        try:
            async with self._probing:
                return await inside.run_in_host(ask)
        except MeshdError as error:
            return str(error)
        finally:
            cgroups.sweep(one.cgroup)

    def _say(self, uid: str, seen: Observation | None) -> None:
        before = self._told.pop(uid, None)
        if seen:
            self._told[uid] = seen
            fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "capture"}
            if (
                seen.problem
                and not seen.unprotected
                and (before is None or before.problem != seen.problem)
            ):
                _log.warning("workload %s: %s", uid, seen.problem, extra=fields)
            if seen.proven and not (before and before.proven):
                _log.info("workload %s: captured and proven", uid, extra=fields)
            seen = self._with_counts(uid, seen)
        self._observe(uid, seen)

    def _tell_again(self, uid: str) -> None:
        if seen := self._told.get(uid):
            self._observe(uid, self._with_counts(uid, seen))

    def _with_counts(self, uid: str, seen: Observation) -> Observation:
        dropped = self._limited.of(uid) if self._limited else DroppedConnections()
        return msgspec.structs.replace(seen, interruptions=self._interruptions, dropped=dropped)
