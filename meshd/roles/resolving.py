"""Keeps the resolver's tables at what the mesh's services are, and has it read them again."""

from __future__ import annotations

from collections.abc import Mapping

from meshd import wire
from meshd.model.service import ServiceRecord
from meshd.resolver import files
from meshd.resolver.tables import tables
from meshd.roles.link import Link
from meshd.settings import Paths


class Resolving:
    def __init__(self, paths: Paths, domain: str) -> None:
        self._directory = paths.resolver_run
        self._domain = domain
        self._supervisor = Link(paths.socket("supervisor"), lambda _: None)
        self._followed: Mapping[str, ServiceRecord] | None = None
        self._version = 0

    async def run(self) -> None:
        """Until cancelled."""
        await self._supervisor.run()

    def follow(self, services: Mapping[str, ServiceRecord]) -> None:
        """Raises SystemRefusedError when the tables cannot be written."""
        if services == self._followed:
            return
        changed = files.write(self._directory, tables(services.values(), self._domain))
        # The first time in any case: who wrote before may have ended before it could tell.
        if changed or self._followed is None:
            self._version += 1
            self._supervisor.tell(wire.ReloadNames(self._version))
        self._followed = services
