"""Keeps the resolver's tables at what the mesh's services are, and has them read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from meshd import wire
from meshd.model.service import ServiceRecord
from meshd.resolver import files
from meshd.resolver.asking import knows
from meshd.resolver.command import wildcards_server
from meshd.resolver.tables import marked, tables
from meshd.roles.link import Link
from meshd.settings import MeshSettings, Paths

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 1.0
"""Seconds between questions whether it has read them."""


class Resolving:
    """``changed`` is called when the resolver has read what was written last."""

    def __init__(self, paths: Paths, settings: MeshSettings, changed: Callable[[], None]) -> None:
        self._directory = paths.resolver_run
        self._settings = settings
        self._changed = changed
        self._supervisor = Link(paths.socket("supervisor"), lambda _: None)
        self._followed: Mapping[str, ServiceRecord] | None = None
        self._version = 0
        self._written: tuple[str, ...] = ()
        self._read: tuple[str, ...] = ()
        self._news = asyncio.Event()

    @property
    def is_read(self) -> bool:
        """Whether the resolver answers with what the services are."""
        return self._read == self._written

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._supervisor.run())
            tasks.create_task(self._ask())

    def follow(self, services: Mapping[str, ServiceRecord]) -> None:
        """Raises SystemRefusedError when the tables cannot be written."""
        if services == self._followed:
            return
        domain, wild = self._settings.domain, wildcards_server(self._settings)
        self._written, told = marked(tables(services.values(), domain, wild), domain, wild)
        changed = files.write(self._directory, told)
        # The first time in any case: who wrote before may have ended before it could tell.
        if changed or self._followed is None:
            self._tell()
        self._followed = services
        self._news.set()

    def _tell(self) -> None:
        self._version += 1
        self._supervisor.tell(wire.ReloadNames(self._version))

    async def _ask(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            pause = _FIRST_PAUSE
            while not await self._knows_all(wanted := self._written):
                await asyncio.sleep(pause)
                if pause == _LONGEST_PAUSE:
                    self._tell()  # who should have read them was just being replaced, perhaps
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._read = wanted
            self._changed()

    async def _knows_all(self, names: tuple[str, ...]) -> bool:
        return all([await knows(self._settings.dns_port, name) for name in names])
