"""Connects a server's mesh role with its server role: what other nodes are told, and what they
report.

Their last reports are kept on disk here, so that endpoints on other nodes outlive every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from meshd import wire
from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.base.errors import UNDECODABLE, MeshdError
from meshd.base.kept_file import KeptFile
from meshd.model.workload import Workload
from meshd.node.reconciler import Mesh
from meshd.wire import channel
from meshd.workloads import record as workloads

_log = logging.getLogger(__name__)


class Sharing:
    """The exchange. ``record``: the file of reports. ``handle`` answers all other requests."""

    def __init__(
        self,
        mesh: Mesh,
        node: str,
        record: Path,
        handle: Callable[[wire.AnyMessage], Awaitable[wire.Message]],
    ) -> None:
        self._mesh = mesh
        self._node = node
        self.kept = KeptFile(record, lambda: msgspec.json.encode(mesh.elsewhere), mesh.touch)
        self._handle = handle
        self._json: dict[int, tuple[Object, dict[str, Any]]] = {}
        mesh.worries.append(lambda: self.kept.problem)
        mesh.hear_of(tuple(one for one in self._load() if one.node != node))

    async def session(self, connection: channel.Connection) -> None:
        follower: asyncio.Task[None] | None = None
        try:
            while (request := await connection.receive()) is not None:
                if isinstance(request, wire.Follow):
                    if request.workloads is not None:
                        self._hear_of(request.workloads)
                    follower = follower or asyncio.create_task(self._follow(connection))
                else:
                    await connection.send(await self._answer(request))
        finally:
            if follower:
                follower.cancel()
                with contextlib.suppress(asyncio.CancelledError, MeshdError):
                    await follower

    async def _answer(self, request: wire.AnyMessage) -> wire.Message:
        try:
            return await self._handle(request)
        except MeshdError as error:
            return wire.Failed(str(error))

    async def _follow(self, connection: channel.Connection) -> None:
        told: wire.Shared | None = None
        objects: Mapping[Key, Object] | None = None
        while True:
            count = self._mesh.settlings
            changed = self._mesh.store.objects is not objects
            objects = self._mesh.store.objects
            now = wire.Shared(
                (*self._mesh.roster(self._node), *self._mesh.elsewhere),
                tuple(map(self._to_json, objects.values())) if changed else None,
            )
            if changed or told is None or now.workloads != told.workloads:
                await connection.send(now)
                told = now
            await self._mesh.settled_after(count)

    def _to_json(self, found: Object) -> dict[str, Any]:
        """Return an object's JSON, which is made once, since an object never changes."""
        known = self._json.get(id(found))
        if known is None or known[0] is not found:
            known = self._json[id(found)] = (found, to_json(found))
        return known[1]

    # ---- what other nodes told

    def _hear_of(self, workloads: tuple[Workload, ...]) -> None:
        if workloads != self._mesh.elsewhere:
            self._mesh.hear_of(workloads)
            self.kept.touch()

    def _load(self) -> tuple[Workload, ...]:
        try:
            found, problems = workloads.listed(self.kept.path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, *UNDECODABLE) as error:
            _log.warning(
                "%s: not usable, so nothing runs elsewhere until the nodes tell: %s",
                *(self.kept.path, error),
                extra={"MESHD_EVENT": "record-lost"},
            )
            return ()
        for problem in problems:
            text = "%s: a workload of another node is left out: %s"
            _log.error(text, self.kept.path, problem, extra={"MESHD_EVENT": "record-lost"})
        return found
