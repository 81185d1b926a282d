"""Registers the services of this host that the configuration declares."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from meshd.api.service_entry.types import WorkloadEntry
from meshd.base.errors import MeshdError
from meshd.node.reconciler import Mesh
from meshd.workloads.host import declared

_AGAIN: Final = 5.0
"""Seconds after which what could not be recorded is tried again."""
_log = logging.getLogger(__name__)


class Declarations:
    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._changed = asyncio.Event()
        self._problems: tuple[str, ...] = ()
        mesh.store.subscribe(self._changed.set)
        mesh.own.subscribe(self._changed.set)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._changed.clear()
            try:
                self._follow()
            except MeshdError as error:
                _log.error("%s", error, extra={"MESHD_EVENT": "declared"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN):
                    await self._changed.wait()

    def _follow(self) -> None:
        """Raises MeshdError."""
        mesh = self._mesh
        found = mesh.store.objects.values()
        entries = [one for one in found if isinstance(one, WorkloadEntry)]
        if not any(declared.ANNOTATION in one.metadata.annotations for one in entries) and not any(
            one.host and one.host.declared for one in mesh.registered.values()
        ):
            return
        difference = declared.compare(entries, mesh.registered, mesh.own.every)
        self._say(difference.problems)
        if difference.register:
            mesh.register(difference.register)
        if difference.unregister:
            mesh.unregister(difference.unregister)

    def _say(self, problems: tuple[str, ...]) -> None:
        for problem in set(problems) - set(self._problems):
            _log.warning("%s", problem, extra={"MESHD_EVENT": "declared"})
        self._problems = problems
