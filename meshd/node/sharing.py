"""Connects a server's mesh role with its server role: what other nodes are told, and what they
report.

Their last reports are kept on disk here, so that endpoints on other nodes outlive every process.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.base import kept_file
from meshd.base.errors import MeshdError
from meshd.base.json_values import JsonObject
from meshd.base.kept_file import KeptFile
from meshd.base.sequence_difference import SequenceDifference
from meshd.base.tasks import first_of
from meshd.base.threads import in_thread
from meshd.config import lost_configuration
from meshd.config.withheld import Replacement, unusable_json
from meshd.model.workload import Workload
from meshd.node.mesh import Mesh
from meshd.wire import channel
from meshd.wire.parts import Gathering, Splitting
from meshd.workloads import record as workloads

_log = logging.getLogger(__name__)
_PART: Final = 1000
"""Workloads that are encoded at once."""
_NO_DIGESTS: Final[Mapping[Key, str]] = {}


class Encoded:
    """The objects' JSON, which is made once for each version, and kept as long as that is told."""

    def __init__(self) -> None:
        self._known: Mapping[Key, tuple[Object, JsonObject]] = {}

    def all(
        self, objects: Mapping[Key, Object], digests: Mapping[Key, str] = _NO_DIGESTS
    ) -> tuple[JsonObject, ...]:
        """Return the JSON of objects; ``digests``: see ``Store.digest_of``."""
        before, known = self._known, dict[Key, tuple[Object, JsonObject]]()
        for key, one in objects.items():
            kept = before.get(key)
            if kept is None or kept[0] is not one:
                kept = one, _json(one, digests.get(key, ""))
            known[key] = kept
        self._known = known
        return tuple(value for _, value in known.values())


def _json(found: Object, digest: str) -> JsonObject:
    return unusable_json(found, digest) if isinstance(found, Replacement) else to_json(found)


def _differ(workloads: tuple[Workload, ...], before: tuple[Workload, ...]) -> bool:
    """Return whether two reports differ, compared in parts, as other threads run in between."""
    part = SequenceDifference.between(before, workloads)
    return bool(part.of_old(before) or part.of_new(workloads))


def _in_parts(workloads: Sequence[Workload]) -> bytes:
    """Return a JSON list, encoded in parts, since no other thread runs while one is encoded."""
    starts = range(0, len(workloads), _PART)
    parts = (msgspec.json.encode(workloads[start : start + _PART]) for start in starts)
    return b"[" + b",".join(part[1:-1] for part in parts) + b"]"


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
            lambda: functools.partial(_in_parts, self._told),
            mesh.settling.touch,
        )
        self._hearing = asyncio.Lock()
        """One session after the other, so that the newest is heard last."""
        self._handle = handle
        self._encoded = Encoded()
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
        gathering = Gathering()
        while (request := await connection.receive()) is not None:
            if isinstance(request, wire.Follow):
                if (whole := gathering.follow(request)) is None:
                    continue
                if whole.workloads is not None:
                    await self._hear_of(whole.workloads)
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
        splitting = Splitting()
        while True:
            count = self._mesh.settling.count
            workloads = self._mesh.settling.answer(self._workloads)
            changed = self._mesh.store.objects is not objects
            if workloads is not None and (changed or workloads != told):
                told, objects = workloads, self._mesh.store.objects
                lost = bool(self._mesh.store.lost)
                told_of = (
                    await in_thread("encoding what nodes are told", self._telling())
                    if changed
                    else None
                )
                await connection.send_all(splitting.split(wire.Shared(workloads, told_of, lost)))
            await self._mesh.settling.after(count)

    def _workloads(self) -> tuple[Workload, ...]:
        return (*self._mesh.roster(self._node), *self._mesh.elsewhere)

    def _telling(self) -> Callable[[], tuple[JsonObject, ...]]:
        """Return what returns the objects that are told now, whatever changes meanwhile."""
        store = self._mesh.store
        told = store.objects
        if store.lost:
            told = lost_configuration.told(told, store.lost, self._mesh.options.root_namespace)
        given_up = [one for one in store.given_up if not isinstance(one, Replacement)]
        digests = {
            one.key: store.digest_of(one.key)
            for one in store.standing
            if isinstance(one, Replacement)
        }
        return functools.partial(self._encode, told, (*store.closed, *given_up), digests)

    def _encode(
        self, told: Mapping[Key, Object], closed: Iterable[Object], digests: Mapping[Key, str]
    ) -> tuple[JsonObject, ...]:
        return (*self._encoded.all(told, digests), *map(unusable_json, closed))

    # ---- what other nodes told

    async def _hear_of(self, workloads: tuple[Workload, ...]) -> None:
        async with self._hearing:
            # Of a report that comes again, each workload is equal to the one before.
            compare = functools.partial(_differ, workloads, self._told)
            if await in_thread("comparing what runs elsewhere", compare):
                await self._mesh.hear_of_many(workloads)
                self._told = workloads
                self.kept.touch()

    def _load(self) -> tuple[Workload, ...]:
        consequence = "nothing runs elsewhere until the nodes tell"
        found, problems = kept_file.load(self.kept.path, workloads.listed, consequence) or ((), ())
        for problem in problems:
            text = "%s: a workload of another node is left out: %s"
            _log.error(text, self.kept.path, problem, extra={"MESHD_EVENT": "record-lost"})
        return found
