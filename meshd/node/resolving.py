"""Keeps the resolvers' tables equal to the mesh's services, and has them read."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from meshd import wire
from meshd.base.errors import SystemRefusedError
from meshd.model.service import ServiceRecord
from meshd.model.workload import Workload
from meshd.resolver import files
from meshd.resolver.asking import knows
from meshd.resolver.command import server
from meshd.resolver.search import domains
from meshd.resolver.tables import marked, tables
from meshd.resolver.upstreams import refuses, upstreams, watch
from meshd.resolver.views import (
    View,
    addresses,
    common,
    known_by_all,
    known_otherwise,
    present,
    view,
)
from meshd.settings import MeshSettings, Paths
from meshd.wire.link import Link

_log = logging.getLogger(__name__)
_EVENT: Final = {"MESHD_EVENT": "resolver"}
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 1.0
"""Seconds between questions whether it has read them."""
_PATIENCE: Final = 0.2
"""Seconds for the first answers; later ones are given more, up to ``_LONGEST_PAUSE``."""


class Resolving:
    """The resolvers' tables. ``changed`` is called when the resolvers have read the newest ones."""

    def __init__(self, paths: Paths, settings: MeshSettings, changed: Callable[[], None]) -> None:
        self._directory = paths.resolver_run
        self._settings = settings
        self._changed = changed
        self._supervisor = Link(paths.socket("supervisor"), lambda _: None)
        self._followed: tuple[object, ...] | None = None
        self._search: tuple[str, ...] = ()
        self._version = 0
        self._addresses: dict[str, str] = {
            view.namespace: view.address for view in present(self._directory)
        }
        """Of the resolvers that namespaces have to themselves. Who has one keeps it for as long as
        it has workloads here: to change over costs the queries that are under way."""
        self._answering = frozenset(self._addresses.values())
        self._written: frozenset[tuple[str, str]] = frozenset()
        self._read: frozenset[tuple[str, str]] = frozenset()
        """Addresses, and names that only who has read all knows."""
        self._news = asyncio.Event()

    @property
    def is_read(self) -> bool:
        """Return whether the resolvers answer with the present services."""
        return self._read == self._written

    @property
    def resolvers(self) -> dict[str, str]:
        """Return the addresses of namespaces' own resolvers that have answered."""
        return {name: one for name, one in self._addresses.items() if one in self._answering}

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._supervisor.run())
            tasks.create_task(self._ask())
            listed = functools.partial(upstreams, self._settings)
            tasks.create_task(watch(listed, self._hear_of_outside, refuses))

    def follow(
        self, services: Mapping[str, ServiceRecord], workloads: Collection[Workload]
    ) -> None:
        """Write the tables for these; ``workloads``: of this node.

        Raises SystemRefusedError if the tables cannot be written.
        """
        namespaces = {workload.namespace for workload in workloads}
        self._search = domains(
            self._settings.domain,
            self._settings.search_domains,
            {workload.netns for workload in workloads},
        )
        if (follows := (services, namespaces, self._search)) == self._followed:
            return
        records = tuple(services.values())
        special = known_otherwise(records, namespaces, self._settings.domain)
        kept = {*special, *(name for name in self._addresses if name in namespaces)}
        self._addresses = addresses(kept, self._addresses)
        views = [view(self._directory, name, self._addresses[name]) for name in sorted(kept)]
        marks, changed = self._write(common(self._directory), known_by_all(records), namespaces)
        for one in views:
            files.make(one.directory)
            more, is_new = self._write(one, special.get(one.namespace, ()))
            marks, changed = marks | more, changed or is_new
        for gone in set(present(self._directory)) - set(views):
            files.remove(gone.directory)
            changed = True
        self._written = marks
        # The first time in any case: who wrote before may have ended before it could tell.
        if changed or self._followed is None:
            self._tell()
        self._followed = follows
        self._news.set()

    def _write(
        self, one: View, services: Iterable[ServiceRecord], namespaces: Iterable[str] = ()
    ) -> tuple[frozenset[tuple[str, str]], bool]:
        """Write a view; return its marks, and whether anything is new."""
        domain, wild = self._settings.domain, server(one.wildcards_address, self._settings)
        told = tables(
            services, domain, wild, self._search, namespaces, overlaid=bool(one.namespace)
        )
        names, told = marked(told, domain, wild)
        is_new = files.write(one.directory, told)
        return frozenset((one.address, name) for name in names), is_new

    def _hear_of_outside(self, nobody: bool) -> None:
        try:
            changed = files.note(self._directory / files.NOBODY, present=nobody)
        except SystemRefusedError as error:
            _log.error("%s", error, extra=_EVENT)
            return
        if changed and nobody:
            listed = ", ".join(address for address, _ in upstreams(self._settings))
            _log.warning(
                "no outside resolver accepts queries (%s refuse them)", listed, extra=_EVENT
            )
        elif changed:
            _log.info("an outside resolver accepts queries again", extra=_EVENT)
        if changed:
            self._tell()

    def _tell(self) -> None:
        self._version += 1
        self._supervisor.tell(wire.ReloadNames(self._version))

    async def _ask(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            pause = _FIRST_PAUSE
            known: set[tuple[str, str]] = set()
            while not await self._learn(known, wanted := self._written, max(pause, _PATIENCE)):
                await asyncio.sleep(pause)
                if pause == _LONGEST_PAUSE:
                    self._tell()  # who should have read them was just being replaced, perhaps
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._read = wanted
            self._answering = frozenset(address for address, _ in wanted)
            self._changed()

    async def _learn(
        self, known: set[tuple[str, str]], marks: frozenset[tuple[str, str]], patience: float
    ) -> bool:
        """Return whether all marks are ``known`` now.

        Marks that were known are not asked again: on a busy machine some answers are late each
        time, and hardly ever none of them.
        """
        known &= marks
        for address, name in sorted(marks - known):
            if await knows(self._settings.dns_port, name, address, patience):
                known.add((address, name))
        return known >= marks
