"""Connects a server's mesh role with its server role: what other nodes are told, and what they
report.

Their last reports are kept on disk here, so that endpoints on other nodes outlive every process.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from meshd import wire
from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.base import kept_file
from meshd.base.errors import MeshdError
from meshd.base.json_values import JsonObject
from meshd.base.kept_file import KeptFile
from meshd.base.tasks import first_of
from meshd.config import lost_configuration
from meshd.config.withheld import unusable_json
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.workload import Workload
from meshd.node.mesh import Mesh
from meshd.wire import channel
from meshd.workloads import record as workloads

_log = logging.getLogger(__name__)


class Encoded:
    """The objects' JSON, which is made once for each version, and kept as long as that is told.

    ``digest_of``: see ``Store.digest_of``.
    """

    def __init__(self, digest_of: Callable[[Key], str] = lambda _: "") -> None:
        self._digest_of = digest_of
        self._known: Mapping[Key, tuple[Object, JsonObject]] = {}

    def all(self, objects: Mapping[Key, Object]) -> tuple[JsonObject, ...]:
        self._known = {key: self._one(one) for key, one in objects.items()}
        return tuple(value for _, value in self._known.values())

    def _one(self, wanted: Object) -> tuple[Object, JsonObject]:
        known = self._known.get(wanted.key)
        return known if known and known[0] is wanted else (wanted, self._json(wanted))

    def _json(self, found: Object) -> JsonObject:
        if isinstance(found, ClosedPolicy):
            return unusable_json(found, self._digest_of(found.key))
        return to_json(found)


class Sharing:
    """The exchange. ``record``: the file of reports. ``handle`` answers all other requests."""

    def __init__(
        self,
        mesh: Mesh,
        node: str,
        record: Path,
        handle: channel.Handle[wire.ToMesh],
    ) -> None:
        self._mesh = mesh
        self._node = node
        self._told: tuple[Workload, ...] = ()
        """Also of workloads that are left out, because processes died of them."""
        self.kept = KeptFile(
            record,
            lambda: functools.partial(msgspec.json.encode, self._told),
            mesh.settling.touch,
        )
        self._handle = handle
        self._encoded = Encoded(mesh.store.digest_of)
        mesh.further_problems.append(lambda: self.kept.problem)
        self._told = tuple(one for one in self._load() if one.node != node)
        mesh.hear_of(self._told)

    async def session(self, connection: channel.Connection[wire.ToMeshOfServer]) -> None:
        """Answer requests, and tell whoever follows of each change.

        The session ends when it cannot tell, so that the follower comes back.
        """
        followed = asyncio.Event()
        await first_of(self._receive(connection, followed), self._follow(connection, followed))

    async def _receive(
        self, connection: channel.Connection[wire.ToMeshOfServer], followed: asyncio.Event
    ) -> None:
        while (request := await connection.receive()) is not None:
            if isinstance(request, wire.Follow):
                if request.workloads is not None:
                    self._hear_of(request.workloads)
                followed.set()
            else:
                await connection.send(await self._answer(request, connection.is_waiting))

    async def _answer(self, request: wire.ToMesh, is_waiting: channel.IsWaiting) -> wire.Message:
        try:
            return await self._handle(request, is_waiting)
        except MeshdError as error:
            return wire.Failed(str(error))

    async def _follow(
        self, connection: channel.Connection[wire.ToMeshOfServer], followed: asyncio.Event
    ) -> None:
        await followed.wait()
        told: tuple[Workload, ...] | None = None
        objects: Mapping[Key, Object] | None = None
        while True:
            count = self._mesh.settling.count
            workloads = self._mesh.settling.answer(self._workloads)
            changed = self._mesh.store.objects is not objects
            if workloads is not None and (changed or workloads != told):
                told, objects = workloads, self._mesh.store.objects
                lost = bool(self._mesh.store.lost)
                told_of = self._objects() if changed else None
                await connection.send(wire.Shared(workloads, told_of, lost))
            await self._mesh.settling.after(count)

    def _workloads(self) -> tuple[Workload, ...]:
        return (*self._mesh.roster(self._node), *self._mesh.elsewhere)

    def _objects(self) -> tuple[JsonObject, ...]:
        store = self._mesh.store
        told = store.objects
        if store.lost:
            told = lost_configuration.told(told, store.lost, self._mesh.options.root_namespace)
        given_up = (one for one in store.given_up if not isinstance(one, ClosedPolicy))
        return (*self._encoded.all(told), *map(unusable_json, (*store.closed, *given_up)))

    # ---- what other nodes told

    def _hear_of(self, workloads: tuple[Workload, ...]) -> None:
        if workloads != self._told:
            self._told = workloads
            self._mesh.hear_of(workloads)
            self.kept.touch()

    def _load(self) -> tuple[Workload, ...]:
        consequence = "nothing runs elsewhere until the nodes tell"
        found, problems = kept_file.load(self.kept.path, workloads.listed, consequence) or ((), ())
        for problem in problems:
            text = "%s: a workload of another node is left out: %s"
            _log.error(text, self.kept.path, problem, extra={"MESHD_EVENT": "record-lost"})
        return found
