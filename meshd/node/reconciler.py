"""What the mesh role knows, and what follows when any of it changes.

The one place where config, workloads, compile and xds meet. It does what the pure packages decide,
again after each change of a fact, until nothing more follows from the facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from meshd import wire
from meshd.api import file_references
from meshd.api.base import Key, Object
from meshd.base.errors import MeshdError
from meshd.base.once import SaidOnce
from meshd.compile.compiler import Compiler
from meshd.compile.envoy import shares
from meshd.compile.envoy.listeners import workload_of
from meshd.compile.gateway.ports import gateway_ports
from meshd.compile.isolation import Isolating, closed
from meshd.compile.policy import mutual_tls_timeout
from meshd.config.store import Store
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Observation, Workload
from meshd.node import probing
from meshd.node.in_work import InWork
from meshd.node.own_addresses import OwnAddresses
from meshd.node.packing import Packer
from meshd.node.resolving import Resolving
from meshd.node.trying import refused
from meshd.proxy.machine import capacity_here
from meshd.registry import snapshots
from meshd.registry.registry import build_snapshot
from meshd.settings import Paths, Settings
from meshd.wire.link import Link
from meshd.workloads import addressing, groups, record
from meshd.workloads.health import Checker
from meshd.workloads.host import host_services, restoring
from meshd.workloads.lifecycle import (
    Facts,
    Life,
    Plan,
    known_again,
    owners_accepted,
    owners_present,
    step,
)
from meshd.xds.server import Server

_log = logging.getLogger(__name__)


class Mesh:
    """Everything that this role knows, and what it does when any of it changes."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.options = settings.mesh_options(paths, capacity_here(settings.proxy))
        self.store = Store(paths.config_directory, paths.lib)
        self.xds = Server(self.touch)
        self.capture = Link(paths.socket("capture"), self._observe)
        self.identity = Link(paths.socket("identity"), self._certify)
        self.resolving = Resolving(paths, settings.mesh, self.touch)
        self.own = OwnAddresses()
        self.registered: dict[str, Workload] = {}  # as it was asked for; see ``known``
        self.contacts = 0
        """How often the server has heard what runs here, if there is one."""
        self.elsewhere: tuple[Workload, ...] = ()
        """Workloads of other nodes, as those name them."""
        self.checker = Checker(
            paths.healthy,
            self._forget_snapshot,
            functools.partial(probing.run, paths.socket("supervisor")),
        )
        self.lives: dict[str, Life] = {}
        self.observations: dict[str, Observation] = {}
        self.certificates: dict[str, wire.CertificateState] = {}
        self.certificates_problem = ""
        self._files: dict[str, str] = {}
        """Why secrets in files cannot be served, by name."""
        self.problems: tuple[str, ...] = ()
        """What is wrong with the configuration, a line each."""
        self.worries: list[Callable[[], str]] = [lambda: self.certificates_problem]
        """What else may be wrong: each gives a line, or nothing."""
        self._observed = False
        self._pins: dict[str, str] = {}
        self._damaged: dict[str, str] = {}
        """Workloads of which the record cannot be used: what there is to say, by uid."""
        self._host_is_known = True
        self._service_cidr = settings.mesh.service_cidr
        self._paths = paths
        self._compiled = Compiler()
        self._compiler = Isolating(self._compiled, Compiler)
        self._uncompiled = SaidOnce({"MESHD_EVENT": "not-compiled"})
        self._unusable = SaidOnce({"MESHD_EVENT": "credential"})
        self._unsettled = ""
        """Why what is wanted could not be put in force; empty when it was."""
        self._packer = Packer()
        self._compiled_from: tuple[Any, ...] = ()
        self._snapshot: Snapshot | None = None
        self._dirty = asyncio.Event()
        self._settled = asyncio.Condition()
        self.settlings = 0
        self.work = InWork(paths.lib / "attempts.json", self.store, own=settings.role != "agent")
        self._load()
        self._have_moved()
        self.own.subscribe(self._have_moved)
        self.worries.append(lambda: addressing.first_doubt(self.registered, self.own.every))
        self.store.subscribe(self._forget_snapshot)
        self._dirty.set()

    def _load(self) -> None:
        services = record.load(self._services_path, keep=True)
        running = record.load(self._paths.workloads, keep=True)
        found = restoring.restore(services, running, restoring.pinned(self._paths.netns))
        self.registered, self.lives, self._damaged = found.registered, found.lives, found.problems
        self._host_is_known = not (services.lost and running.lost)
        for problem in (services.lost, running.lost, *found.problems.values()):
            if problem:
                _log.error("%s", problem, extra={"MESHD_EVENT": "record-lost"})

    @property
    def _services_path(self) -> Path:
        return self._paths.lib / host_services.RECORD

    def _save(self) -> None:
        record.save(self._paths.workloads, record.Record(self.registered, self.lives))

    # ---- what others tell

    def touch(self) -> None:
        """A fact has changed."""
        self._dirty.set()

    def register(self, found: tuple[Workload, ...]) -> None:
        """Raises SystemRefusedError when it cannot be recorded: then nothing has changed."""
        placed = host_services.with_ports(found, self.registered)
        self._host_is_known = self._host_is_known or any(one.host for one in placed)
        self._record({workload.uid: workload for workload in placed})

    def unregister(self, uids: tuple[str, ...]) -> None:
        """Raises SystemRefusedError when it cannot be recorded: then nothing has changed."""
        self._record(dict.fromkeys(uids))

    def _record(self, news: Mapping[str, Workload | None]) -> None:
        """None: it is registered no more."""
        before, lives = self.registered, self.lives
        after = {**before, **news}
        self.registered = {uid: one for uid, one in after.items() if one is not None}
        self.lives = lives | {
            uid: known_again(lives[uid], news[uid]) for uid in news.keys() & lives.keys()
        }
        try:
            host_services.save(self._services_path, self.registered, before)
            self._save()
        except MeshdError:
            self.registered, self.lives = before, lives
            raise
        for uid in news:
            self._damaged.pop(uid, None)
        self._forget_snapshot()

    def hear_of(self, elsewhere: tuple[Workload, ...]) -> None:
        """All workloads of other nodes, from now on."""
        taken = self.work.elsewhere(elsewhere, self.elsewhere, starting=not self.settlings)
        if taken != self.elsewhere:
            self.elsewhere = taken
            self._forget_snapshot()

    def _forget_snapshot(self) -> None:
        self._snapshot = None
        self.touch()

    def _have_moved(self) -> None:
        """This host has other addresses than before."""
        self._forget_snapshot()
        before = self.registered
        self.registered = addressing.asked_only(before, self.own.every)
        try:
            host_services.save(self._services_path, self.registered, before)
        except MeshdError as error:
            _log.warning("%s", error, extra={"MESHD_EVENT": "record"})

    def _observe(self, message: wire.AnyMessage) -> None:
        if isinstance(message, wire.Observed):
            before = self.known
            self.observations = {seen.uid: seen for seen in message.observations}
            if self.known != before:
                self._forget_snapshot()
            self._pins.update(
                (seen.uid, seen.pinned) for seen in message.observations if seen.pinned
            )
            self._observed = True
            self.touch()
        elif isinstance(message, wire.Failed):
            _log.error("capture: %s", message.reason, extra={"MESHD_EVENT": "capture-failed"})

    def _certify(self, message: wire.AnyMessage) -> None:
        if isinstance(message, wire.Certificates):
            self.certificates = {state.uri: state for state in message.certificates}
            self.certificates_problem = message.problem
            self._files = {state.name: state.problem for state in message.files}
            self.touch()
        elif isinstance(message, wire.Failed):
            _log.error("identity: %s", message.reason, extra={"MESHD_EVENT": "identity-failed"})

    # ---- what follows

    async def settle_for_ever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            working = self.work.names
            self._unsettled = self._settled_or_why()
            self.work.settled(working)
            self.checker.check(groups.probes(self.known.values(), self.store.objects))
            self.settlings += 1
            async with self._settled:
                self._settled.notify_all()

    def _settled_or_why(self) -> str:
        """Empty, or why not. Whatever it is, what was in force stays, and people can still ask and
        change what is wanted: a role that ended here would begin with the same facts again."""
        try:
            self.settle()
        except MeshdError as error:
            _log.error("%s", error, extra={"MESHD_EVENT": "not-settled"})
            return str(error)
        except Exception as error:
            reason = f"what is wanted is not in force, by a fault of meshd: {error!r}"
            if reason != self._unsettled:
                _log.exception("%s", reason, extra={"MESHD_EVENT": "not-settled"})
            return reason
        return ""

    def settle(self) -> None:
        """One step at a time, for as long as a step brings another. Raises MeshdError."""
        self.resolving.follow(self.snapshot.services, self.snapshot.workloads.values())
        while True:
            plan = step(self.lives, self.snapshot.workloads, self.facts())
            advanced = plan.lives != self.lives
            if advanced:
                self.lives = plan.lives
                self._save()
            self._act(plan)
            if not advanced:
                return

    def _act(self, plan: Plan) -> None:
        self.identity.tell(wire.Allow(plan.identities, self.contacts))
        self._publish(plan.served)
        self._pins = {uid: path for uid, path in self._pins.items() if uid in plan.lives}
        self.capture.tell(wire.Place(plan.placements, self._host_is_known))

    @property
    def known(self) -> dict[str, Workload]:
        """What is registered, with its addresses of now."""
        seen = {uid: one.addresses for uid, one in self.observations.items()}
        if not self._observed:  # as they were last, until capture has told
            seen = {uid: life.workload.addresses for uid, life in self.lives.items()} | seen
        return addressing.known(self.registered, self.own.preferred, seen)

    @property
    def members(self) -> dict[str, Workload]:
        """What is known, as WorkloadGroups want it."""
        objects, is_healthy = self.store.objects, self.checker.is_healthy
        return {uid: groups.as_member(one, objects, is_healthy) for uid, one in self.known.items()}

    @property
    def running(self) -> tuple[Workload, ...]:
        """All workloads that are in the mesh, or may be, on whichever node."""
        return (*self.members.values(), *self.elsewhere)

    @property
    def snapshot(self) -> Snapshot:
        """Of the configuration and the registered workloads, as they are now."""
        if self._snapshot is None:
            taken, problems = snapshots.take(
                self.store,
                self.members.values(),
                self.options,
                self._service_cidr,
                map(record.elsewhere, self.elsewhere),
            )
            self._snapshot = closed(taken, self.store.closed)
            for problem in sorted(set(problems) - set(self.problems)):
                _log.warning("%s", problem, extra={"MESHD_EVENT": "config"})
            self.problems = problems
        return self._snapshot

    def _publish(self, served: Mapping[str, Workload]) -> None:
        """Compile, if anything has changed that it depends on, and hand it to the proxies.

        Nothing is published before capture has told where namespaces are pinned: proxies go on
        with what they have until then.
        """
        if not self._observed:
            return
        pinned = {
            uid: msgspec.structs.replace(workload, netns=path)
            for uid, workload in served.items()
            if (path := "" if workload.host else self._pins.get(uid)) is not None
        }
        resolvers = self.resolving.resolvers
        inputs = (self.snapshot, pinned, resolvers)
        if self._compiled_from == inputs:
            return
        seen = msgspec.structs.replace(self.snapshot, workloads=pinned, resolvers=resolvers)
        self.xds.publish(self._packer.pack(self._compiler.compile(seen, pinned)))
        self._compiled_from = inputs
        self._uncompiled.say(self._compiler.problems)
        self._unusable.say(self._credential_problems())

    def refusals(self, after: Mapping[Key, Object], changed: Collection[Key]) -> tuple[str, ...]:
        """What of a configuration that is wanted cannot be compiled, a line each, as far as what is
        changed matters to it. Nothing is stored or put in force. Raises InvalidInputError."""
        snapshot = build_snapshot(
            after.values(),
            self.members.values(),
            self.options,
            self.store.addresses,
            elsewhere=map(record.elsewhere, self.elsewhere),
        )
        return refused(snapshot, after, changed)

    def facts(self) -> Facts:
        published, accepted = self.xds.published_names(), self.xds.accepted_names()
        return Facts(
            observations=self.observations,
            observed=self._observed,
            missing=self.xds.missing,
            accepted=owners_accepted(published, accepted, workload_of),
            present=owners_present(self.xds.present_names(), workload_of),
            bypass={uid: tuple(found.ports) for uid, found in gateway_ports(self.snapshot).items()},
            trust_domain=self.options.trust_domain,
        )

    def _credential_problems(self) -> tuple[str, ...]:
        now = time.time()
        found = (used.problem(now) for used in self._compiled.credentials)
        return tuple(filter(None, found))

    def not_in_force(self) -> tuple[str, ...]:
        """What is wanted and what proxies refuse or would refuse, a line each. That something is
        missing is no part of it: it may come."""
        refused = (
            f"{type_url.rpartition('.')[2]} {name} is refused by a proxy: {rejection.reason}"
            for (type_url, name), rejection in self.xds.rejections().items()
        )
        unusable = (
            used.unusable for used in self._compiled.credentials if not used.credential.missing
        )
        return (*self._compiler.problems, *filter(None, unusable), *refused)

    def all_problems(self) -> tuple[str, ...]:
        worries = (worry() for worry in self.worries)
        return (
            *self.problems,
            *self._compiler.problems,
            *self._credential_problems(),
            *file_references.problems(self.store.objects.values(), self._files),
            *self._damaged.values(),
            *self.work.problems,
            *filter(None, (self._unsettled, *worries)),
            *shares.problems(self.registered.values()),
            *mutual_tls_timeout.problems(self.registered.values()),
        )

    def roster(self, node: str) -> tuple[Workload, ...]:
        """This node's workloads as other nodes are to know them."""
        return record.roster(
            node, self.members, self.lives, self.snapshot.workloads, self.options.locality
        )

    async def settled_after(self, count: int) -> None:
        """Until it has settled more than ``count`` times."""
        async with self._settled:
            await self._settled.wait_for(lambda: self.settlings > count)

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Whether it became true within ``timeout`` seconds; looked at after each change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._settled:
                await self._settled.wait_for(predicate)
        return predicate()
