"""Answers the requests of meshctl and registrars to the mesh role."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from meshd import wire
from meshd.api import file_references
from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Service
from meshd.base.errors import MeshdError, NotReadyError
from meshd.base.threads import in_thread
from meshd.compile.explain import request as explain
from meshd.compile.explain.judging import judging
from meshd.compile.names import LOCAL, workload_of
from meshd.config import requests
from meshd.config.service_status import with_addresses
from meshd.model.pool import Pool
from meshd.model.workload import Workload
from meshd.node.changing import Change, Changing
from meshd.node.cluster import Cluster
from meshd.node.enrolling import Enrolling
from meshd.node.enrollment_journal import JOURNAL, Journal
from meshd.node.enrollment_requests import EnrollmentRequests
from meshd.node.enrollment_steps import Steps
from meshd.node.in_force import InForce
from meshd.node.instance import instance_of
from meshd.node.mesh import Mesh
from meshd.node.offers import Offers
from meshd.node.registration import Registration
from meshd.node.short_ways import ShortWays, may_call
from meshd.node.units import Units
from meshd.proxy import config_dump
from meshd.proxy.rule_counts import rule_counts
from meshd.settings import Paths, Settings
from meshd.wire import channel, cluster
from meshd.wire.channel import IsWaiting
from meshd.workloads import finding, groups, status
from meshd.workloads.lifecycle import Facts

if TYPE_CHECKING:
    from meshd.node.agent import Agent

_log = logging.getLogger(__name__)
_FILES_TIMEOUT: Final = 15.0
"""Seconds within which the identity role has to read files."""
_QUESTION_TIMEOUT: Final = 2.0
"""Seconds within which another process has to answer."""


class Control:
    def __init__(
        self, mesh: Mesh, settings: Settings, paths: Paths, agent: Agent | None = None
    ) -> None:
        """Wire the parts that answer. ``agent``: set if the configuration comes from a server."""
        self._mesh = mesh
        self._agent = agent
        self._role = settings.role
        self._node = settings.node_name
        self._paths = paths
        self._registration = Registration(
            mesh.reconciler,
            mesh.settling,
            self._problem_of,
            functools.partial(may_call, mesh),
            fails_open=settings.fails_open,
        )
        server, boot = (settings.server if agent else ""), instance_of(paths.run)
        self._changing = Changing(mesh)
        self.cluster = Cluster(
            paths.lib / "cluster-state",
            mesh.store.surround,
            mesh.reconciler.list_endpoints,
            mesh.settling.touch,
            enabled=settings.kubernetes.enabled and bool(settings.kubernetes.kubeconfig),
        )
        mesh.further_problems.append(lambda: self.cluster.problem)
        offers, units = (
            Offers(mesh, self._changing, is_own=not server),
            Units(paths.socket("capture")),
        )
        steps = Steps(self._registration, offers, units)
        self.enrolling = Enrolling(Journal(paths.lib / JOURNAL), steps, boot)
        self._enrollments = EnrollmentRequests(self.enrolling, steps, server=server, boot=boot)

    async def handle(  # noqa: PLR0911
        self, request: wire.ToMesh, is_waiting: IsWaiting = lambda: True
    ) -> wire.Message:
        """Return the answer to a request. Raises MeshdError, which is answered as ``Failed``.

        ``is_waiting``: whoever asks still waits, as they have to until a change is stored.
        """
        match request:
            case wire.Register():
                return await self._register(request)
            case wire.Unregister():
                return await self._unregister(request)
            case cluster.Objects() | cluster.Slices() | cluster.Trouble():
                return self.cluster.take(request)
            case wire.Enroll() | wire.EnrollAgain() | wire.Unenroll() | wire.Await():
                return await self._enrollments.answer(request)
            case wire.Apply() | wire.DeleteNamed() if self._agent:
                return await self._agent.changed(request)
            case wire.Apply() | wire.DeleteNamed():
                return await self._change(request, is_waiting)
            case wire.Get():
                return await self._get(request)
            case wire.Status():
                return await self._status()
            case wire.ProxyConfig():
                return await self._proxy_config(request)
            case wire.Explain():
                return await self._explain(request)
            case wire.AboutWorkload():
                return await self._judging(request)

    # ---- workloads

    async def _register(self, request: wire.Register) -> wire.Message:
        self._registration.register(request.workloads)
        if request.wait > 0:
            uids = [workload.uid for workload in request.workloads]
            await self._registration.prove(uids, request.wait)
        return wire.Done()

    async def _unregister(self, request: wire.Unregister) -> wire.Message:
        await self._registration.unregister(request.uids)
        return wire.Done()

    def _problem_of(self, uid: str) -> str:
        reconciler = self._mesh.reconciler
        facts = reconciler.facts(reconciler.inside())
        return self._row(reconciler.present()[uid], facts, None).problem

    # ---- configuration

    async def _change(self, request: Change, is_waiting: IsWaiting) -> wire.Message:
        mesh = self._mesh
        in_force = InForce(mesh, self._changing, 0 if request.dry_run else request.wait)
        await in_force.look()
        is_applied = isinstance(request, wire.Apply)
        services = tuple((await mesh.snapshot()).services.values()) if is_applied else ()
        answer = await self._changing.change(request, is_waiting, services)
        if isinstance(answer, wire.Rejected):
            return answer
        if is_applied and not request.delete:
            keys = (Key(one.kind, one.namespace, one.name) for one in answer.changes)
            objects = [mesh.store.objects[key] for key in keys if key in mesh.store.objects]
            warnings = await self._file_problems(objects)
            answer = msgspec.structs.replace(answer, warnings=(*answer.warnings, *warnings))
        return await in_force.reached(answer)

    async def _file_problems(self, objects: list[Object]) -> tuple[str, ...]:
        """Return the problems, on this node, of the files that some objects name.

        Nothing is returned if the identity role, which reads the files, does not answer.
        """
        if not (names := file_references.names_of(objects)):
            return ()
        try:
            answer = await channel.call(
                self._paths.socket("identity"), wire.CheckFiles(names), timeout=_FILES_TIMEOUT
            )
        except MeshdError:
            return ()
        found = answer.problems if isinstance(answer, wire.CheckedFiles) else ()
        return file_references.problems(objects, {one.name: one.problem for one in found})

    async def _get(self, request: wire.Get) -> wire.Objects:
        moment, entries = self._mesh.store.moment, self._entries()
        is_service = requests.find_kind(request.kind) is Service
        services = (await self._mesh.snapshot()).services.values() if is_service else ()

        def read() -> wire.Objects:
            found = requests.get(moment, request, entries)
            if not is_service:
                return found
            return wire.Objects(with_addresses(found.objects, services))

        return await in_thread("reading objects", read)

    def _entries(self) -> Mapping[Key, Object]:
        """Return the WorkloadEntries of WorkloadGroups' members.

        They come and go with nodes and are not stored.
        """
        return groups.entries((*self._mesh.roster(self._node), *self._mesh.elsewhere))

    # ---- status

    async def _status(self) -> wire.Message:
        reconciler = self._mesh.reconciler
        facts = reconciler.facts(reconciler.inside())
        told = await self._nodes()
        ways = ShortWays(self._mesh, facts) if self._mesh.options.short_way else None
        present = sorted(reconciler.present().items())
        return wire.Statuses(
            tuple(self._row(found, facts, ways) for _, found in present),
            self._mesh.xds.members(),
            await self._roles(),
            self._agent.status() if self._agent else None,
            told.nodes,
            problems=(*self._mesh.all_problems(), *told.problems),
            enrollments=self.enrolling.statuses(),
            capacity=str(self._mesh.capacity),
        )

    def _row(self, workload: Workload, facts: Facts, ways: ShortWays | None) -> wire.WorkloadStatus:
        """Return the row of a workload; ``ways``: how it is reached, if that is to be told."""
        mesh = self._mesh
        refused = (
            rejection.reason
            for (_, name), rejection in mesh.xds.rejections().items()
            if workload_of(name) == workload.uid
        )
        enrolled = mesh.reconciler.membership(workload)
        why = "" if enrolled.enrolled else enrolled.reason
        return status.row(
            workload,
            mesh.reconciler.known.lives.get(workload.uid),
            facts,
            mesh.certificates.states,
            node=self._node,
            proxy=",".join(member.name for member in mesh.xds.members()),
            rejected=next(refused, ""),
            outside=f"not in the mesh: {why}" if why else "",
            short_way=ways.state(workload) if ways else "",
            hbone=self._hbone(workload) if mesh.options.hbone else "",
        )

    def _hbone(self, workload: Workload) -> str:
        """Return whether other nodes are told to reach a workload by tunnels, or why not."""
        life = self._mesh.reconciler.known.lives.get(workload.uid)
        if problem := self._mesh.tunneled.obstacle(workload, life):
            return problem
        told = workload.uid in self._mesh.tunneled.told
        return "open" if told else "proxies do not have its listener yet"

    async def _roles(self) -> tuple[wire.RoleStatus, ...]:
        """Return the states of the roles; none if the supervisor does not answer.

        The rest of the status is useful without them.
        """
        try:
            answer = await channel.call(
                self._paths.socket("supervisor"), wire.Children(), timeout=_QUESTION_TIMEOUT
            )
        except MeshdError:
            return ()
        return answer.children if isinstance(answer, wire.ChildStates) else ()

    async def _nodes(self) -> wire.NodeStatuses:
        """Return the states of the nodes; none if the server role does not run or answer."""
        if self._role != "server":
            return wire.NodeStatuses(())
        try:
            answer = await channel.call(
                self._paths.socket("server"), wire.Nodes(), timeout=_QUESTION_TIMEOUT
            )
        except MeshdError:
            return wire.NodeStatuses(())
        return answer if isinstance(answer, wire.NodeStatuses) else wire.NodeStatuses(())

    async def _proxy_config(self, request: wire.ProxyConfig) -> wire.Message:
        """Return a section of the proxies' configuration.

        Raises NotReadyError if no member of a pool answers.
        """
        keep: Callable[[str], bool] = lambda _: True  # noqa: E731
        if request.workload:
            uids = {workload.uid for workload in self._find(request.workload, request.namespace)}
            keep = lambda name: workload_of(name) in uids  # noqa: E731
        found: list[config_dump.Entry] = []
        for names in [[request.proxy]] if request.proxy else self._names_by_pool():
            found += await config_dump.section(self._paths.admin_run, names, request.section)
        if request.section == "listeners":
            found = [entry for entry in found if keep(str(entry.get("name", "")))]
        return wire.Objects(tuple(found))

    def _names_by_pool(self) -> list[list[str]]:
        """Return the names of the connected members of each pool.

        Raises NotReadyError if there are none.
        """
        members = self._mesh.xds.members()
        found = [[one.name for one in members if one.pool is pool] for pool in Pool]
        if not any(found):
            raise NotReadyError("no proxy is connected")
        return list(filter(None, found))

    def _find(self, name: str, namespace: str) -> tuple[Workload, ...]:
        """Return the workloads of a name. Raises InvalidInputError if there are none."""
        return finding.find(self._mesh.reconciler.known.registered.values(), name, namespace)

    async def _judging(self, request: wire.AboutWorkload) -> wire.Message:
        found = sorted(self._find(request.workload, request.namespace), key=lambda one: one.uid)
        snapshot = self._mesh.publishing.in_force or await self._mesh.snapshot()
        names = [one.name for one in self._mesh.xds.members() if one.pool is Pool.TRAFFIC]
        counts = await rule_counts(self._paths.admin_run, names)
        known = snapshot, found[0], self._mesh.store.place_of, counts
        return await in_thread("authz", functools.partial(judging, *known))

    async def _explain(self, request: wire.Explain) -> wire.Message:
        sources = sorted(self._find(request.source, request.namespace), key=lambda one: one.uid)
        mesh, source = self._mesh, sources[0]
        request = msgspec.structs.replace(request, now=request.now or time.time())
        snapshot = await mesh.snapshot()
        # ``explain`` reads frozen values only, and takes seconds in a large mesh.
        return await in_thread(
            "explain",
            functools.partial(
                explain.explain,
                mesh.publishing.in_force or snapshot,
                source,
                request,
                mesh.store.place_of,
                mesh.publishing.uncompiled,
                is_member=source.uid in mesh.reconciler.inside(),
                avoiding=mesh.xds.avoiding(LOCAL),
            ),
        )
