"""Makes the changes of the configuration that meshctl and enrollments ask for, one at a time.

A change is checked in a thread, from the content of the store at one moment, and again if that has
changed meanwhile. It is stored only while the client still waits for the answer: later, nobody
would learn of it (decision 26).
"""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
import time
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import Key
from meshd.api.yaml import read_path
from meshd.base.errors import NotReadyError
from meshd.base.threads import in_thread
from meshd.config import requests
from meshd.config.applied import Applied
from meshd.config.moment import Moment, Transaction
from meshd.config.requests import Judged
from meshd.model.service import ServiceRecord
from meshd.node.dry_run import dry_run
from meshd.node.mesh import Mesh
from meshd.registry.snapshots import Given
from meshd.wire.channel import IsWaiting

_log = logging.getLogger(__name__)
Change = wire.Apply | wire.DeleteNamed
Judge = Callable[[Moment], Judged | wire.Rejected]
_REMEMBERED: Final = 1000
"""Changes whose objects are remembered."""


class Changing:
    """Makes the changes. Nothing else changes what is stored."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._lock = asyncio.Lock()
        self._storing = asyncio.Lock()
        """Held by what goes on though whoever asked for it was cancelled."""
        self.count = 0
        """How many changes were made."""
        self._made: collections.deque[frozenset[Key]] = collections.deque(maxlen=_REMEMBERED)

    async def change(
        self,
        request: Change,
        is_waiting: IsWaiting = lambda: True,
        services: Collection[ServiceRecord] = (),
    ) -> wire.Changed | wire.Rejected:
        """Make a change, or say what is wrong with it; a dry run changes nothing.

        ``services`` have the addresses that ``get`` shows. Raises MeshdError; then nothing is
        changed.
        """
        until = time.monotonic() + wire.STORED_WITHIN
        if request.dry_run:
            judge = self._judge(request, services)
            found = await _judged(judge, self._mesh.store.moment)
            if isinstance(found, wire.Rejected):
                return found
            return await self._foreseen(found.answer, request)
        async with self._lock:
            async with self._storing:
                pass
            while True:
                if not is_waiting():
                    raise _gone()
                moment = self._mesh.store.moment
                found = await _judged(self._judge(request, services), moment)
                if isinstance(found, wire.Rejected):
                    return found
                if time.monotonic() > until:
                    raise NotReadyError(
                        "nothing was stored: the change was not checked within"
                        f" {wire.STORED_WITHIN:g} s; try again when the node has less to do"
                    )
                if self._mesh.store.is_current(moment):
                    break
            if not is_waiting():
                raise _gone()
            # The client may go now: a change that is being written is put in force all the same.
            await asyncio.shield(self._store(found.transaction))
        return found.answer

    def keys_since(self, count: int) -> frozenset[Key]:
        """Return the objects that were changed since ``count`` had this value, if remembered."""
        recent = list(self._made)[max(0, len(self._made) - (self.count - count)) :]
        return frozenset[Key]().union(*recent)

    def _judge(self, request: Change, services: Collection[ServiceRecord]) -> Judge:
        running = self._mesh.running
        if isinstance(request, wire.DeleteNamed):
            return lambda moment: requests.judged_deletion(moment, request, running)
        refusals = self._mesh.trial()
        return lambda moment: requests.judged(moment, request, refusals, running, services)

    async def _store(self, transaction: Transaction) -> None:
        """Write a change in a thread, and put it in force. Raises SystemRefusedError."""
        if transaction.changes_nothing:
            return
        store = self._mesh.store
        write: Callable[[], Applied] = functools.partial(store.write, transaction)
        async with self._storing:
            store.adopt(await in_thread("storing a change", write))
            await asyncio.sleep(0)  # others have their turn: either step may be long
            store.tell()
        self._made.append(
            frozenset(Key(one.kind, one.namespace, one.name) for one in transaction.changes)
        )
        self.count += 1

    async def _foreseen(self, answer: wire.Changed, request: Change) -> wire.Changed:
        """Add to the answer to a dry run what the change would do. Raises InvalidInputError."""
        mesh = self._mesh
        given, inputs, moment = Given.of(mesh.store), mesh.reconciler.inputs(), mesh.store.moment
        changed = {
            Key(one.kind, one.namespace, one.name)
            for one in answer.changes
            if one.result != "unchanged"
        }

        def planned() -> wire.Foreseen:
            after, reads = requests.outcome(moment, request, changed)

            def place_of(key: Key, field: str) -> str:
                read = reads.get(key) or moment.reads.get(key)
                return read.place_of(read_path(field)) if read else ""

            before = mesh.publishing.wanted(inputs, given)
            wanted = mesh.publishing.wanted(inputs, given.with_objects(after, changed))
            return dry_run(before, wanted, changed, place_of)

        # A large mesh takes seconds.
        foreseen = await in_thread("planning", planned)
        return msgspec.structs.replace(answer, foreseen=foreseen)


async def _judged(judge: Judge, moment: Moment) -> Judged | wire.Rejected:
    return await in_thread("checking a change", functools.partial(judge, moment))


def _gone() -> NotReadyError:
    _log.warning(
        "a change was not stored: meshctl had ended before the change was checked",
        extra={"MESHD_EVENT": "not-stored"},
    )
    return NotReadyError("nothing was stored: the client no longer waits for the answer")
