"""Tells the mesh which workloads exist, and again after it has been away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.base.tasks import first_of
from meshd.model.workload import Workload
from meshd.wire import channel

_BACKOFF: Final = Backoff(0.2, 5.0)
"""Between attempts to reach a mesh that is not there."""
_WAIT: Final = 30.0
"""Seconds for a workload to be proven, and for one to be let go."""


class Registrar:
    """Registers workloads; ``workloads`` returns all that exist now."""

    def __init__(self, mesh: Path, workloads: Callable[[], tuple[Workload, ...]]) -> None:
        self._mesh = mesh
        self._workloads = workloads
        self._changed = asyncio.Event()
        self._told: tuple[Workload, ...] = ()

    def change(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Keep a connection, and report each change over it, until cancelled."""
        failures = 0
        while True:
            failures += 1
            try:
                async with await channel.connect(self._mesh) as connection:
                    failures = 1
                    await self._talk(connection)
            except MeshdError:
                pass
            await asyncio.sleep(_BACKOFF.pause(failures))

    async def _talk(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        """Report changes until the mesh hangs up, which it does when it ends."""
        self._told = ()
        await first_of(self._answers(connection), self._tell_for_ever(connection))

    async def _tell_for_ever(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        while True:
            self._changed.clear()  # first: what changes from now on is told the next time
            await self._tell(connection)
            await self._changed.wait()

    async def _tell(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        """Register each workload by itself: one that the mesh refuses affects no other."""
        now = self._workloads()
        news = [workload for workload in now if workload not in self._told]
        self._told = now
        for workload in news:
            await connection.send(wire.Register((workload,)))

    async def _answers(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        while (answer := await connection.receive()) is not None:
            if isinstance(answer, wire.Failed):
                print(f"the mesh refused a workload: {answer.reason}", flush=True)
                self._told = ()
                asyncio.get_running_loop().call_later(_BACKOFF.longest, self.change)

    async def prove(self, workload: Workload) -> None:
        """Raises MeshdError when its traffic is not captured in time."""
        request = wire.Register((workload,), wait=_WAIT)
        try:
            answer = await channel.call(self._mesh, request, timeout=_WAIT + 5)
        finally:
            # It is on a connection of its own, and may have come after what is newer.
            self._told = tuple(one for one in self._told if one.uid != workload.uid)
            self.change()
        if isinstance(answer, wire.Failed):
            raise SystemRefusedError(answer.reason)

    async def tell(self, workloads: tuple[Workload, ...]) -> None:
        """Return when the mesh knows how these are. A mesh that is not there need not know."""
        for workload in workloads:
            with contextlib.suppress(MeshdError):
                await channel.call(self._mesh, wire.Register((workload,)), timeout=_WAIT)

    async def forget(self, uids: tuple[str, ...]) -> str:
        """Unregister workloads; return what went wrong, or nothing: a mesh that is away holds
        none."""
        if not uids or not self._mesh.exists():
            return ""
        try:
            answer = await channel.call(self._mesh, wire.Unregister(uids), timeout=_WAIT)
        except MeshdError as error:
            return str(error)
        return answer.reason if isinstance(answer, wire.Failed) else ""
