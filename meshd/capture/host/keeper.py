"""Captures the services of the host: one set of rules, and so one task, for all of them.

This module does for workloads in the host's namespace what ``pods.keeper`` does for those with a
namespace of their own. It changes nothing until the first workload is placed; a note in the run
directory tells the next process that there are rules to remove.
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

from meshd.base import own_addresses, tasks
from meshd.base.backoff import Backoff
from meshd.base.disk import replace
from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.capture.host import probing
from meshd.capture.host.hosted import host_workload, without_conflicts
from meshd.capture.host.rules import HostWorkload
from meshd.capture.pods import excess, interruption, names, unprotected
from meshd.capture.pods.limited import Limited
from meshd.capture.probes import inbound as inbound_probe
from meshd.capture.probes.inbound import Verdict
from meshd.capture.probes.outbound import listens_here
from meshd.capture.probes.outpost import Outpost
from meshd.capture.rules import apply, fingerprint, inside, locks
from meshd.capture.rules.events import RuleEvents
from meshd.capture.rules.fingerprint import Fingerprint
from meshd.capture.rules.targets import HostCapture
from meshd.model.workload import (
    DroppedConnections,
    HostService,
    Interruptions,
    Observation,
    Placement,
    Stage,
    shown,
)
from meshd.settings import CaptureSettings

_LOOK: Final = 0.2
"""Seconds between looks at the cgroups (some microseconds each) and at legacy tables."""
_BACKOFF: Final = Backoff(0.1, 10.0)
"""The pauses between attempts while something is wrong."""
_LOOK_AGAIN: Final = Backoff(0.1, names.LOOK)
"""The pauses between attempts while only the resolvers do not answer."""
_FAILURES_TO_OPEN: Final = 4
"""Failed probes in a row after which a service with ``failure_policy: open`` is unprotected."""
_PROBES_AT_ONCE: Final = 4

_log = logging.getLogger(__name__)


class HostKeeper:
    """Keeps the services of the host captured.

    ``observe`` is called with each observation of a workload, or with None once it is let go;
    ``served`` at each look that finds a service proven. ``bypasses`` returns, by uid, which
    processes of a service are outside its cgroup, where no rule of meshd sees them.
    ``proxy_user``: see ``HostWorkload``.
    """

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
        """Remarks by uid about services that would be proven, had no process left their cgroup."""
        self._wanted: dict[str, Placement] = {}
        self._told: dict[str, Observation] = {}
        self._wake = asyncio.Event()
        self._claim: locks.Claim | None = None
        self._applied: tuple[HostCapture, Fingerprint] | None = None
        self._doubted = False
        """A probe failed: the rules must be checked, whatever the fingerprint says."""
        self._events: RuleEvents | None = None
        self._routing: own_addresses.Watch | None = None
        self._limited: Limited | None = None
        self._writing = False
        self._noticed = 0.0
        """When another program's change of the rules was noticed (monotonic clock); 0: none was."""
        self._interruptions = Interruptions()
        self._preceding = interruption.Precedence()
        self._outpost = Outpost()
        self._task: asyncio.Task[None] | None = None

    def place(self, placements: Mapping[str, Placement]) -> None:
        """Take all placements of services of the host, in place of those before."""
        if self._task is None and (placements or self._note.exists()):
            self._task = tasks.keep(self._work, "capturing services of the host", self._doubt)
        if list(placements.items()) != list(self._wanted.items()):
            self._wanted = dict(placements)
            self._wake.set()

    async def close(self) -> None:
        """Stop the task; leave the rules and the note as they are."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for opened in (self._events, self._routing, self._limited, self._outpost):
            if opened:
                opened.close()
        if self._claim:
            self._claim.release()

    # ---- the task

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        self._events = self._events or RuleEvents(self._look)
        self._routing = self._routing or own_addresses.Watch(self._look, rules=True)
        self._limited = self._limited or Limited(self._tell_again)
        failures = 0
        while True:
            self._wake.clear()
            found, problems = self._find()
            try:
                await self._capture(found)
            except (MeshdError, OSError) as error:
                problems = dict.fromkeys(self._wanted, str(error)) | problems
            try:
                await self._tell(problems)
            except (MeshdError, OSError) as error:
                self._doubt(str(error))
            self._doubted = not (well := self._is_well)
            failures = 0 if well else failures + 1
            retry = _LOOK_AGAIN if any(gate.is_open for gate in self._names.values()) else _BACKOFF
            until = loop.time() + (self._settings.probe_interval if well else retry.pause(failures))
            while loop.time() < until and not self._wake.is_set():
                if self._find()[0] != found:
                    break  # a cgroup came or went
                if self._events.has_legacy_tables:
                    self._look()
                await self._sleep(min(_LOOK, until - loop.time()))

    def _look(self) -> None:
        """Wake the task if another program has changed rules."""
        if self._applied and not self._writing and self._applied[1] != fingerprint.take():
            self._noticed = self._noticed or time.monotonic()
            self._wake.set()

    @property
    def _is_well(self) -> bool:
        """Tell whether nothing is wrong with the rules and the proxies."""
        captured = (seen for seen in self._told.values() if seen.stage is Stage.CAPTURED)
        return all(seen.proven or seen.uid in self._outside for seen in captured)

    async def _sleep(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _find(self) -> tuple[HostCapture, dict[str, str]]:
        """Return what to capture of the services whose cgroups exist, and the problems by uid."""
        captured: list[HostWorkload] = []
        waiting: list[HostWorkload] = []
        problems: dict[str, str] = {}
        before = {one.uid: one for one in self._applied[0].workloads} if self._applied else {}
        for uid, placement in self._wanted.items():
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
                one = closed  # better than unprotected
            (captured if placement.stage is Stage.CAPTURED else waiting).append(one)
        settings = self._settings
        alone, conflicts = without_conflicts(captured)
        alone = tuple(sorted(alone, key=lambda one: one.uid))
        waiting.sort(key=lambda one: one.uid)
        alone = self._limited.counted(alone) if self._limited else alone
        capture = HostCapture(alone, tuple(waiting), settings.backend, settings.ipv6)
        return capture, problems | conflicts

    def _without_wishes(self, placement: Placement) -> HostWorkload | None:
        """Return the workload captured without its annotations, which may be what is wrong."""
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
        if outcome.unlogged and self._limited:
            self._limited.refuse(outcome.unlogged)
            wanted = dataclasses.replace(wanted, workloads=self._limited.counted(wanted.workloads))
        changes = self._events.between(before[1], outcome.found) if before and self._events else ()
        if ended := self._preceding.become(outcome.foreign, changes):
            self._count_interruption(ended)
        # Rules also differ when a cgroup came or went meanwhile, which is no interruption.
        again = before and before[0] == wanted and before[1] != outcome.found
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
        """Report the services as unproven until they are probed again; those already in doubt keep
        their own reason."""
        for uid, seen in tuple(self._told.items()):
            if seen.stage is Stage.CAPTURED and (seen.proven or uid in self._outside):
                self._say(uid, msgspec.structs.replace(seen, proven=False, problem=problem))

    def _write_note(self, wanted: HostCapture) -> None:
        """Write down the services for the next process, and for readers that cannot trust meshd's
        other reports about them."""
        captured = {one.uid: one.cgroup for one in (*wanted.workloads, *wanted.waiting)}
        for uid in self._unprotected & self._wanted.keys():
            if host := self._wanted[uid].workload.host:
                captured[uid] = host.cgroup
        replace(self._note, msgspec.json.encode(captured), durable=False)

    def _claim_host(self) -> None:
        """Claim the host's namespace. Raises SystemRefusedError if another meshd holds it."""
        self._claim = self._claim or locks.Claim(locks.KEEPER)
        if not self._claim.take():
            raise SystemRefusedError(
                "another meshd captures services in this network namespace; only one can"
            )

    # ---- observations

    async def _tell(self, problems: Mapping[str, str]) -> None:
        applied = self._applied[0] if self._applied else HostCapture()
        captured = {one.uid: one for one in applied.workloads}
        for uid in self._told.keys() - self._wanted.keys():
            self._unprotected.discard(uid)
            self._names.pop(uid, None)
            if uid not in captured:
                self._say(uid, None)
        fine = (captured.keys() & self._wanted.keys()) - problems.keys()
        self._outside = dict(await self._look_outside(fine))
        # Each is probed by itself; those that fail take some seconds, and so come last.
        ordered = sorted(
            captured.keys() & self._wanted.keys(), key=lambda uid: (self._failures[uid], uid)
        )
        judged = await asyncio.gather(
            *(self._judge(captured[uid], problems.get(uid, "")) for uid in ordered),
            return_exceptions=True,  # so that none is left running beside those of the next round
        )
        if self._outpost.is_doubted or not self._wanted:
            self._outpost.close()
        for uid in sorted(self._wanted.keys() - captured.keys() - self._unprotected):
            self._say(uid, Observation(uid, Stage.PINNED, problem=problems.get(uid, "")))
        for uid, error in zip(ordered, judged, strict=True):
            if isinstance(error, MeshdError | OSError):
                self._say(uid, self._captured(uid, str(error), "", Verdict()))
            elif error:
                raise error

    async def _judge(self, one: HostWorkload, problem: str) -> None:
        """Probe a service, report the result, and leave it unprotected where the policy says so."""
        unanswered, sent = "", Verdict()
        if not (problem := problem or await self._probe(one)):
            unanswered = await self._look_up(one) if self._fail_open else ""
            addresses = own_addresses.preferred()
            sent = await inbound_probe.probe_service(self._outpost, addresses, one)
        if not (placement := self._wanted.get(one.uid)):
            return  # it was let go meanwhile
        if problem:
            self._outside = {uid: text for uid, text in self._outside.items() if uid != one.uid}
        seen = self._captured(one.uid, problem, unanswered, sent)
        self._say(one.uid, seen)
        await self._count(one, problem if one.cgroup_id else "")
        if (host := placement.workload.host) and (seen.proven or one.uid in self._outside):
            self._served(host)

    def _captured(self, uid: str, problem: str, unanswered: str, inbound: Verdict) -> Observation:
        if unanswered and self._names[uid].is_open:
            text = unprotected.queries(unanswered)
            return Observation(uid, Stage.CAPTURED, problem=text, unprotected=True)
        problem = problem or unanswered or inbound.problem or self._preceding.problem
        problem = problem or self._outside.get(uid, "")
        return Observation(uid, Stage.CAPTURED, not problem, problem, unseen=inbound.unseen)

    async def _look_outside(self, uids: Iterable[str]) -> Mapping[str, str]:
        hosts = {uid: self._wanted[uid].workload.host for uid in uids}
        services = {uid: host for uid, host in hosts.items() if host}
        return await asyncio.to_thread(self._bypasses, services) if services else {}

    async def _look_up(self, one: HostWorkload) -> str:
        """Return what is wrong with the DNS of a service, which may fail alone; else empty."""
        gate = self._names[one.uid]
        if not (one.options.dns or gate.is_open):
            return ""
        problem = await names.ask(one.outbound_port)
        if gate.judge(problem):
            self._wake.set()
            if gate.is_open:
                unprotected.complain(one.uid, unprotected.queries(problem))
        return problem

    async def _count(self, one: HostWorkload, problem: str) -> None:
        """Count failures in a row; where the policy says so, leave the service unprotected then."""
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
        async with self._probing:
            return await probing.probe(one)

    def _say(self, uid: str, seen: Observation | None) -> None:
        before = self._told.pop(uid, None)
        if seen:
            self._told[uid] = seen
            fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "capture"}
            is_new = before is None or before.problem != seen.problem
            if seen.problem and not seen.unprotected and is_new:
                _log.warning("workload %s: %s", shown(uid), seen.problem, extra=fields)
            if seen.proven and not (before and before.proven):
                _log.info("workload %s: captured and proven", shown(uid), extra=fields)
            seen = self._with_counts(uid, seen)
        self._observe(uid, seen)

    def _tell_again(self, uid: str) -> None:
        if seen := self._told.get(uid):
            self._observe(uid, self._with_counts(uid, seen))

    def _with_counts(self, uid: str, seen: Observation) -> Observation:
        dropped = self._limited.of(uid) if self._limited else DroppedConnections()
        return msgspec.structs.replace(seen, interruptions=self._interruptions, dropped=dropped)
