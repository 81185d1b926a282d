"""The mesh role's answers to meshctl and registrars."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from meshd import wire
from meshd.api import file_references
from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Service
from meshd.base import journal
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError
from meshd.compile.envoy.listeners import workload_of
from meshd.compile.explain import request as explain
from meshd.config import requests
from meshd.config.service_status import with_addresses
from meshd.model.pool import Pool
from meshd.model.workload import Workload
from meshd.node.reconciler import Mesh
from meshd.proxy import config_dump
from meshd.registry import membership
from meshd.settings import Paths, Settings
from meshd.wire import channel
from meshd.workloads import finding, groups, status
from meshd.workloads.host import host_services
from meshd.workloads.lifecycle import Facts, Phase

if TYPE_CHECKING:
    from meshd.node.agent import Agent

_log = logging.getLogger(__name__)
_GONE_TIMEOUT: Final = 30.0
"""Seconds for a workload to leave the kernel."""
_FILES_TIMEOUT: Final = 15.0
"""Seconds for files to be read."""
_QUESTION_TIMEOUT: Final = 2.0
"""Seconds for another process to answer."""


class Control:
    def __init__(
        self, mesh: Mesh, settings: Settings, paths: Paths, agent: Agent | None = None
    ) -> None:
        """Wire the answers; ``agent``: takes the configuration from a server, if there is one."""
        self._mesh = mesh
        self._agent = agent
        self._role = settings.role
        self._fails_open = settings.fails_open
        self._node = settings.node_name
        self._paths = paths

    async def handle(self, request: wire.AnyMessage) -> wire.Message:  # noqa: PLR0911
        """Raises MeshdError, which is answered as ``Failed``."""
        match request:
            case wire.Register():
                return await self._register(request)
            case wire.Unregister():
                return await self._unregister(request)
            case wire.Apply() | wire.DeleteNamed() if self._agent:
                return self._agent.changed(request)
            case wire.Apply():
                before = self._mesh.not_in_force()
                return await self._changed(await self._apply(request), request, before)
            case wire.DeleteNamed():
                before = self._mesh.not_in_force()
                answer = requests.delete(self._mesh.store, request, self._mesh.running)
                return await self._changed(answer, request, before)
            case wire.Get():
                found = requests.get(self._mesh.store, request, self._entries())
                if requests.find_kind(request.kind) is Service:
                    services = self._mesh.snapshot.services.values()
                    return wire.Objects(with_addresses(found.objects, services))
                return found
            case wire.Status():
                return await self._status()
            case wire.ProxyConfig():
                return await self._proxy_config(request)
            case wire.Explain():
                return self._explain(request)
            case _:
                kind = type(request).__name__
                raise InvalidInputError(f"the mesh role does not answer {kind}")

    # ---- workloads

    async def _register(self, request: wire.Register) -> wire.Message:
        mesh = self._mesh
        host_services.refuse_taken_ports(request.workloads, mesh.registered)
        mesh.register(request.workloads)
        if request.wait <= 0:
            return wire.Done()
        uids = [workload.uid for workload in request.workloads]

        def unproven() -> list[str]:
            inside = mesh.snapshot.workloads
            return [uid for uid in uids if uid in inside and not self._proven(uid)]

        if await mesh.wait(lambda: not unproven(), request.wait):
            return wire.Done()
        facts = mesh.facts()
        rows = {uid: self._row(mesh.known[uid], facts) for uid in unproven()}
        told = "; ".join(f"{uid}: {row.problem or 'no reason yet'}" for uid, row in rows.items())
        told = f"not in the mesh after {request.wait:g} s: {told}"
        if not self._fails_open:
            raise NotReadyError(told)
        text = "%s; started UNPROTECTED (failure_policy: open)"
        for uid in rows:
            journal.event(_log, logging.ERROR, "unprotected", text, told, workload=uid)
        return wire.Done()

    def _proven(self, uid: str) -> bool:
        life = self._mesh.lives.get(uid)
        seen = self._mesh.observations.get(uid)
        return bool(life and life.phase is Phase.CAPTURED and seen and seen.proven)

    async def _unregister(self, request: wire.Unregister) -> wire.Message:
        mesh = self._mesh
        mesh.unregister(request.uids)

        def left() -> list[str]:
            return [uid for uid in request.uids if uid in mesh.lives]

        if not await mesh.wait(lambda: not left(), _GONE_TIMEOUT):
            waits = ", ".join(f"{uid} ({mesh.lives[uid].phase})" for uid in left())
            raise NotReadyError(f"still being let go after {_GONE_TIMEOUT:g} s: {waits}")
        return wire.Done()

    # ---- configuration

    async def _apply(self, request: wire.Apply) -> wire.Changed | wire.Rejected:
        mesh = self._mesh
        services = mesh.snapshot.services.values()
        answer = requests.apply(mesh.store, request, mesh.refusals, mesh.running, services)
        if isinstance(answer, wire.Changed) and not request.delete:
            keys = (Key(one.kind, one.namespace, one.name) for one in answer.changes)
            objects = [mesh.store.objects[key] for key in keys if key in mesh.store.objects]
            warnings = await self._file_problems(objects)
            answer = msgspec.structs.replace(answer, warnings=(*answer.warnings, *warnings))
        return answer

    async def _file_problems(self, objects: list[Object]) -> tuple[str, ...]:
        """Return what is wrong on this node with the files that some objects name.

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

    async def _changed(
        self,
        answer: wire.Changed | wire.Rejected,
        request: wire.Apply | wire.DeleteNamed,
        before: Collection[str],
    ) -> wire.Message:
        """Return the answer to a change; ``before``: what was not in force before the change."""
        if isinstance(answer, wire.Rejected) or request.dry_run or request.wait <= 0:
            return answer
        mesh = self._mesh
        mesh.settle()
        began = time.monotonic()
        if not await mesh.wait(lambda: mesh.resolving.is_read, request.wait):
            raise NotReadyError(
                f"stored, but the resolver does not have the names after {request.wait:g} s: see"
                " meshctl status"
            )
        # Proxies are told of a namespace's own resolver when it answers.
        mesh.settle()
        left = request.wait - (time.monotonic() - began)
        if not await mesh.xds.wait_settled(left):
            raise NotReadyError(
                f"stored, but not every proxy has it after {request.wait:g} s: see meshctl status"
            )
        if all(change.result == "unchanged" for change in answer.changes):
            before = ()
        refused = tuple(line for line in mesh.not_in_force() if line not in before)
        return msgspec.structs.replace(answer, refused=refused)

    def _entries(self) -> Mapping[Key, Object]:
        """Return the entries of WorkloadGroups' members: they come and go with nodes and are not
        stored."""
        return groups.entries((*self._mesh.roster(self._node), *self._mesh.elsewhere))

    # ---- what is so

    async def _status(self) -> wire.Message:
        facts = self._mesh.facts()
        told = await self._nodes()
        return wire.Statuses(
            tuple(self._row(found, facts) for _, found in sorted(self._mesh.known.items())),
            self._mesh.xds.members(),
            await self._roles(),
            self._agent.status() if self._agent else None,
            told.nodes,
            problems=(*self._mesh.all_problems(), *told.problems),
        )

    def _row(self, workload: Workload, facts: Facts) -> wire.WorkloadStatus:
        mesh = self._mesh
        refused = (
            rejection.reason
            for (_, name), rejection in mesh.xds.rejections().items()
            if workload_of(name) == workload.uid
        )
        inside = workload.uid in mesh.snapshot.workloads
        why = "" if inside else membership.of_workload(workload, mesh.snapshot.namespaces).reason
        return status.row(
            workload,
            mesh.lives.get(workload.uid),
            facts,
            mesh.certificates,
            node=self._node,
            proxy=",".join(member.name for member in mesh.xds.members()),
            rejected=next(refused, ""),
            outside=f"not in the mesh: {why}" if why else "",
        )

    async def _roles(self) -> tuple[wire.RoleStatus, ...]:
        """Return the roles; none if the supervisor does not answer, since the rest is still
        useful."""
        try:
            answer = await channel.call(
                self._paths.socket("supervisor"), wire.Children(), timeout=_QUESTION_TIMEOUT
            )
        except MeshdError:
            return ()
        return answer.children if isinstance(answer, wire.ChildStates) else ()

    async def _nodes(self) -> wire.NodeStatuses:
        """Return the nodes; none if the server role does not answer, or does not run."""
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
        """Raises NotReadyError when no member of a pool answers."""
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
        """Return the names of connected members. Raises NotReadyError if there are none."""
        members = self._mesh.xds.members()
        found = [[one.name for one in members if one.pool is pool] for pool in Pool]
        if not any(found):
            raise NotReadyError("no proxy is connected")
        return list(filter(None, found))

    def _find(self, name: str, namespace: str) -> tuple[Workload, ...]:
        """Raises InvalidInputError."""
        return finding.find(self._mesh.registered.values(), name, namespace)

    def _explain(self, request: wire.Explain) -> wire.Message:
        sources = sorted(self._find(request.source, request.namespace), key=lambda one: one.uid)
        return explain.explain(self._mesh.snapshot, sources[0], request)
