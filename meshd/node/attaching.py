"""Carries out what a container runtime asks of the CNI plugin.

A container is registered before its first process starts, and the runtime waits until its traffic
is proven to be captured. What ends is let go whatever happens: nothing here keeps a pod alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base import journal
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError, SystemRefusedError, UnreachableError
from meshd.cni import request as requests
from meshd.cni import sandboxes
from meshd.cni.request import CniError, Request
from meshd.model.workload import Workload, shown
from meshd.wire import channel

_PROVEN_WITHIN: Final = 30.0
"""Seconds for the traffic of a container to be captured."""
_GONE_WITHIN: Final = 3.0
"""Seconds that the end of a container waits for its rules to go; they go without it, too."""
_LEAVING: Final = 35.0
"""Seconds for the mesh role to let go of a workload."""
_LOOK: Final = 5.0
"""Seconds between looks for containers that have ended without being detached."""
_BACKOFF: Final = Backoff(0.5, 10.0)
_ADVICE: Final = "the runtime tries it again; meshctl status says more"
_log: Final = logging.getLogger(__name__)

Describe = Callable[[Request], Awaitable[Workload | None]]
"""Returns the workload of a container; None: meshd has nothing to do with it. Raises MeshdError."""


def found_before(uid: str) -> str:
    """Return the name under which a pod is attached that ran already."""
    return f"found-{uid}"


class Attaching:
    """``mesh`` is the socket of the mesh role; ``record`` the file of what is attached."""

    def __init__(
        self,
        mesh: Path,
        record: Path,
        describe: Describe,
        *,
        fails_open: bool = False,
        added: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with what is attached.

        ``fails_open``: what the mesh role cannot be told of begins all the same; ``added`` is
        called after each attempt to attach something.
        """
        self._fails_open = fails_open
        self._added = added
        self._mesh = mesh
        self._record = record
        self._describe = describe
        self._known = sandboxes.load(record)
        self._ended = asyncio.Event()
        self._locks = weakref.WeakValueDictionary[str, asyncio.Lock]()
        """By uid: a workload that comes back waits until it has gone."""

    async def handle(self, request: Request) -> None:
        """Do what is asked for. Raises MeshdError."""
        match request.command:
            case "ADD":
                await self._add(request)
            case "CHECK":
                await self._check(request)
            case "DEL":
                found = (found_before(request.pod.uid),) if request.pod else ()
                await self._delete((request.container, *found))
            case "GC":
                await self._collect(request)
            case _:
                await self._answers()

    async def run(self) -> None:
        """Let go of what ended while this role or the mesh role was away, or was never detached;
        until cancelled."""
        failures = 0
        while True:
            if gone := tuple(sandboxes.vanished(self._known)):
                self._end(gone)
            self._ended.clear()
            await asyncio.gather(*map(self._let_go, self._known.leaving))
            failures = failures + 1 if self._known.leaving else 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BACKOFF.pause(failures) if failures else _LOOK):
                    await self._ended.wait()

    async def _add(self, request: Request) -> None:
        workload = await self._describe(request)
        if workload is None:
            return
        try:
            async with self._lock(workload.uid):
                # First on disk: whatever ends this process, the next one knows what is to be let
                # go.
                self._keep(self._known.with_one(request.container, workload))
                await self._prove(workload)
        finally:
            self._added()

    async def _prove(self, workload: Workload) -> None:
        asked = wire.Register((workload,), wait=_PROVEN_WITHIN)
        try:
            answer = await channel.call(self._mesh, asked, timeout=_PROVEN_WITHIN + 5)
        except UnreachableError as error:
            if not self._fails_open:
                raise CniError(requests.TRY_AGAIN, str(error), _ADVICE) from None
            text = "%s; started UNPROTECTED (failure_policy: open)"
            uid = workload.uid
            journal.event(_log, logging.ERROR, "unprotected", text, error, workload=uid)
            return
        if isinstance(answer, wire.Failed):
            raise CniError(requests.TRY_AGAIN, answer.reason, _ADVICE)

    @property
    def attached(self) -> Mapping[str, Workload]:
        """Return the workloads that are attached, by uid."""
        return self._known.newest

    async def update(self, workloads: Iterable[Workload]) -> None:
        """Tell the mesh role of attached workloads that have changed. Those that cannot be told now
        are told with the next change; of those that are just being attached, ``added`` tells."""
        for workload in workloads:
            lock = self._lock(workload.uid)
            if lock.locked():
                continue
            async with lock:
                await self._update(workload)

    async def _update(self, workload: Workload) -> None:
        known = self._known.newest.get(workload.uid)
        if known is None or known == workload or known.netns != workload.netns:
            return
        try:
            answer = await channel.call(self._mesh, wire.Register((workload,)))
            if not isinstance(answer, wire.Failed):
                self._keep(self._known.updated(workload))
                return
            reason = answer.reason
        except MeshdError as error:
            reason = str(error)
        journal.event(_log, logging.WARNING, "cni", "%s", reason, workload=workload.uid)

    async def adopt(self, container: str, workload: Workload) -> None:
        """Attach a workload that runs already, of which nobody has told. Raises MeshdError."""
        async with self._lock(workload.uid):
            if workload.uid in self._known.newest:
                return
            self._keep(self._known.with_one(container, workload))
        try:
            answer = await channel.call(self._mesh, wire.Register((workload,)))
            if isinstance(answer, wire.Failed):
                raise SystemRefusedError(answer.reason)
        except MeshdError:
            self._end((container,))  # nothing is attached that the mesh role does not know
            raise

    async def _check(self, request: Request) -> None:
        workload = await self._describe(request)
        if workload is None:
            return
        known = self._known.attached.get(request.container)
        if known is None or known.workload.netns != workload.netns:
            reason = f"{shown(workload.uid)} was not attached by meshd"
            raise CniError(requests.TRY_AGAIN, reason, "start it anew")
        await self._prove(known.workload)

    async def _delete(self, containers: Collection[str]) -> None:
        leaving = self._end(containers)
        if leaving:
            waiting = asyncio.gather(*map(self._let_go, leaving))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), _GONE_WITHIN)

    def _end(self, containers: Collection[str]) -> tuple[str, ...]:
        """Note that containers have ended; return the workloads that are to leave the mesh."""
        after = self._known.without(containers)
        leaving = tuple(uid for uid in after.leaving if uid not in self._known.leaving)
        try:
            self._keep(after)
        except MeshdError as error:  # it is found by its namespace at the next start
            journal.event(_log, logging.ERROR, "cni", "%s", error)
            self._known = after
        self._ended.set()
        return leaving

    async def _let_go(self, uid: str) -> None:
        """Unregister a workload, unless it has come back. If that fails, ``run`` tries again."""
        async with self._lock(uid):
            if uid not in self._known.leaving:
                return
            try:
                answer = await channel.call(self._mesh, wire.Unregister((uid,)), timeout=_LEAVING)
            except MeshdError as error:
                answer = wire.Failed(str(error))
            if isinstance(answer, wire.Failed):
                journal.event(_log, logging.WARNING, "cni", "%s", answer.reason, workload=uid)
                return
            with contextlib.suppress(MeshdError):
                self._keep(self._known.left(uid))

    async def _collect(self, request: Request) -> None:
        if request.config.valid is None:
            return
        valid = {one.container_id for one in request.config.valid}
        self._end([one for one in self._known.attached if one not in valid])

    async def _answers(self) -> None:
        """Raises CniError if pods could not be attached now."""
        try:
            async with await channel.connect(self._mesh):
                return
        except UnreachableError as error:
            raise CniError(requests.NOT_AVAILABLE, str(error), _ADVICE) from None

    def _lock(self, uid: str) -> asyncio.Lock:
        lock = self._locks.get(uid)
        if lock is None:
            lock = self._locks[uid] = asyncio.Lock()
        return lock

    def _keep(self, known: sandboxes.Sandboxes) -> None:
        """Raises SystemRefusedError; nothing has changed then."""
        sandboxes.save(self._record, known)
        self._known = known
