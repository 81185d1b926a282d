"""Keeps the resolvers' tables equal to the mesh's services, and has them read."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import msgspec

from meshd import wire
from meshd.base.backoff import Backoff
from meshd.base.errors import SystemRefusedError
from meshd.model.service import ServiceRecord
from meshd.model.workload import Workload
from meshd.node.background import Background
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
_BACKOFF: Final = Backoff(0.005, 1.0)
"""Between questions whether it has read them."""
_PATIENCE: Final = 0.2
"""Seconds for the first answers; later ones are given as much as the pause."""


class _Wanted(msgspec.Struct, frozen=True):
    """What the tables are made of."""

    services: Mapping[str, ServiceRecord] | None = None
    namespaces: frozenset[str] = frozenset()
    search: tuple[str, ...] = ()


class _Written(msgspec.Struct, frozen=True):
    """What was written."""

    addresses: Mapping[str, str]
    """Of the resolvers that namespaces have to themselves."""
    marks: frozenset[tuple[str, str]]
    changed: bool


class Resolving:
    """The resolvers' tables. ``changed`` is called when the resolvers have read the newest ones."""

    def __init__(self, paths: Paths, settings: MeshSettings, changed: Callable[[], None]) -> None:
        self._directory = paths.resolver_run
        self._settings = settings
        self._changed = changed
        self._supervisor = Link(paths.socket("supervisor"), lambda _: None)
        self._writing = Background(
            "writing the resolvers' tables", self._begin_writing, self._wrote
        )
        self._wanted = _Wanted()
        self._error: SystemRefusedError | None = None
        """Why the tables could not be written last."""
        self._has_told = False
        self._version = 0
        self._addresses: Mapping[str, str] = {
            view.namespace: view.address for view in present(self._directory)
        }
        """Of the resolvers that namespaces have to themselves. Who has one keeps it for as long as
        it has workloads here: to change over costs the queries that are under way."""
        self._answering = frozenset(self._addresses.values())
        self._marks: frozenset[tuple[str, str]] = frozenset()
        self._read: frozenset[tuple[str, str]] = frozenset()
        """Addresses, and names that only who has read all knows."""
        self._news = asyncio.Event()

    @property
    def problem(self) -> str:
        """Return why the tables are not written, by a fault of meshd; empty if they are."""
        return self._writing.problem

    @property
    def is_read(self) -> bool:
        """Return whether the resolvers answer with the present services."""
        return not self._writing.busy and self._error is None and self._read == self._marks

    @property
    def resolvers(self) -> dict[str, str]:
        """Return the addresses of namespaces' own resolvers that have answered."""
        return {name: one for name, one in self._addresses.items() if one in self._answering}

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._supervisor.run())
            tasks.create_task(self._writing.run())
            tasks.create_task(self._ask())
            listed = functools.partial(upstreams, self._settings)
            tasks.create_task(watch(listed, self._hear_of_outside, refuses))

    def follow(
        self, services: Mapping[str, ServiceRecord], workloads: Collection[Workload]
    ) -> None:
        """Have the tables written for these; ``workloads``: of this node.

        Raises SystemRefusedError if they could not be written: that is tried again each time.
        """
        namespaces = frozenset(workload.namespace for workload in workloads)
        search = domains(
            self._settings.domain,
            self._settings.search_domains,
            {workload.netns for workload in workloads},
        )
        if (wanted := _Wanted(services, namespaces, search)) != self._wanted:
            self._wanted = wanted
            self._writing.ask()
        elif self._error:
            self._writing.ask()
            raise self._error

    def finish(self) -> None:
        """Write here and now what is to be written."""
        self._writing.finish()

    def _begin_writing(self) -> Callable[[], _Written | SystemRefusedError]:
        return functools.partial(self._write_all, self._wanted, self._addresses)

    def _write_all(
        self, wanted: _Wanted, before: Mapping[str, str]
    ) -> _Written | SystemRefusedError:
        """Write all tables. It runs in a thread, and changes nothing but files."""
        records = tuple((wanted.services or {}).values())
        special = known_otherwise(records, wanted.namespaces, self._settings.domain)
        kept = {*special, *(name for name in before if name in wanted.namespaces)}
        given = addresses(kept, before)
        views = [view(self._directory, name, given[name]) for name in sorted(kept)]
        try:
            marks, changed = self._write(
                common(self._directory), known_by_all(records), wanted, wanted.namespaces
            )
            for one in views:
                files.make(one.directory)
                more, is_new = self._write(one, special.get(one.namespace, ()), wanted)
                marks, changed = marks | more, changed or is_new
            for gone in set(present(self._directory)) - set(views):
                files.remove(gone.directory)
                changed = True
        except SystemRefusedError as error:
            return error
        return _Written(given, marks, changed)

    def _write(
        self,
        one: View,
        services: Iterable[ServiceRecord],
        wanted: _Wanted,
        namespaces: Iterable[str] = (),
    ) -> tuple[frozenset[tuple[str, str]], bool]:
        """Write a view; return its marks, and whether anything is new."""
        domain, wild = self._settings.domain, server(one.wildcards_address, self._settings)
        told = tables(
            services, domain, wild, wanted.search, namespaces, overlaid=bool(one.namespace)
        )
        names, told = marked(told, domain, wild)
        is_new = files.write(one.directory, told)
        return frozenset((one.address, name) for name in names), is_new

    def _wrote(self, written: _Written | SystemRefusedError) -> None:
        if isinstance(written, SystemRefusedError):
            is_new = str(written) != str(self._error)
            self._error = written.with_traceback(None)
            if is_new:  # else it was said, and is tried again whenever ``follow`` is called
                self._changed()
            return
        self._error, self._addresses, self._marks = None, written.addresses, written.marks
        # The first time in any case: who wrote before may have ended before it could tell.
        if written.changed or not self._has_told:
            self._has_told = True
            self._tell()
        self._news.set()

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
            known: set[tuple[str, str]] = set()
            for asked in itertools.count(1):
                pause, wanted = _BACKOFF.pause(asked), self._marks
                if await self._learn(known, wanted, max(pause, _PATIENCE)):
                    self._read = wanted
                    break
                await asyncio.sleep(pause)
                if pause == _BACKOFF.longest:
                    self._tell()  # who should have read them was just being replaced, perhaps
            self._answering = frozenset(address for address, _ in self._read)
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
