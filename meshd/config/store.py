"""All objects that the mesh is configured with: those of files, and those that were applied.

A transaction is carried out as a whole, on disk first and then in memory, or not at all.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.config import applied, withheld
from meshd.config.files import ConfigDirectory
from meshd.wire import Change


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Store:
    """Objects by key, with a revision that grows with each change."""

    def __init__(self, directory: Path, state: Path, now: Callable[[], str] = _now) -> None:
        """Open the store.

        ``directory`` holds the administrator's files; ``state`` is our own directory, 0700. Raises
        SystemRefusedError if ``state`` cannot be read.
        """
        self._path = state / "applied.json"
        self._files = ConfigDirectory(directory, state / "config.d")
        self._applied, self._load_findings = applied.load(self._path)
        self._now = now
        self._unsaved: tuple[Finding, ...] = ()
        self._callbacks: list[Callable[[], None]] = []
        self._followed: Mapping[Key, Object] | None = None
        self._closed_elsewhere: Collection[tuple[str, str]] = ()
        self._why_withheld: Callable[[Object], str] = lambda _: ""
        self.known: Collection[Key] = ()
        """What is stored or in files, be it in force or not."""
        self.closed: Collection[tuple[str, str]] = ()
        """What DestinationRules that are not in force are about: their namespace and host."""
        self.revision = self._applied.revision
        self._files.refresh()
        self._merge()

    @property
    def objects(self) -> Mapping[Key, Object]:
        """Return all objects in force. A change makes a new mapping; this one stays as it is."""
        return self._objects

    @property
    def addresses(self) -> Mapping[str, str]:
        """Return the virtual addresses as ``keep_addresses`` left them."""
        return self._applied.addresses

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the findings about the files on disk right now."""
        return (*self._findings, *self._unsaved)

    def file_of(self, key: Key) -> str:
        """Return ``file:line`` of an object that is in a file; empty if it is not."""
        read = self._files.reads.get(key)
        return read.place if read else ""

    def put(self, objects: Iterable[Object], *, dry_run: bool = False) -> tuple[Change, ...]:
        """Create or configure. Raises InvalidInputError, SystemRefusedError: nothing was done."""
        after = dict(self._applied.objects)
        changes: list[Change] = []
        for found in objects:
            self._refuse_file(found.key)
            before = after.get(found.key)
            now = _dated(found, before, self._now)
            changes.append(_change(found.key, _result(before, now)))
            after[found.key] = now
        self._commit(after, changes, dry_run)
        return tuple(changes)

    def delete(self, keys: Iterable[Key], *, dry_run: bool = False) -> tuple[Change, ...]:
        """Raises InvalidInputError (also for what is not there), SystemRefusedError."""
        after = dict(self._applied.objects)
        changes: list[Change] = []
        for key in keys:
            self._refuse_file(key)
            if after.pop(key, None) is None:
                raise InvalidInputError(f"{key} not found")
            changes.append(_change(key, "deleted"))
        self._commit(after, changes, dry_run)
        return tuple(changes)

    def follow(
        self, objects: Mapping[Key, Object], closed: Collection[tuple[str, str]] = ()
    ) -> None:
        """Have these, which live elsewhere, in place of all that was ever applied here.

        ``closed``: what DestinationRules that could not be taken are about.
        """
        if (objects, closed) != (self._followed, self._closed_elsewhere):
            self._followed, self._closed_elsewhere = objects, closed
            self.revision += 1
            self._merge()
            self._notify()

    def withhold(self, why: Callable[[Object], str]) -> None:
        """Withdraw objects for which ``why`` gives a reason, from now on."""
        self._why_withheld = why
        self._merge()

    def keep_addresses(self, addresses: Mapping[str, str]) -> None:
        """Remember virtual addresses over restarts, or until then if the disk does not let us."""
        if dict(addresses) != self._applied.addresses:
            self._applied = dataclasses.replace(self._applied, addresses=dict(addresses))
            self._save_addresses()

    def _save_addresses(self) -> None:
        try:
            applied.save(self._path, self._applied)
        except SystemRefusedError as error:
            reason = f"{error}; virtual addresses of services may be others after a restart"
            self._unsaved = (Finding("", 0, reason),)
        else:
            self._unsaved = ()

    def refresh(self) -> bool:
        """Look at the files again; tell the subscribers if anything changed."""
        unsaved = self._unsaved
        if unsaved:
            self._save_addresses()
        if not self._files.refresh():
            if self._unsaved != unsaved:
                self._notify()
            return False
        self.revision += 1
        self._merge()
        self._notify()
        return True

    async def watch(self, interval: float = 1.0) -> None:
        """Run ``refresh`` each ``interval`` seconds, for ever."""
        while True:
            await asyncio.sleep(interval)
            self.refresh()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called after each change, when it is in force."""
        self._callbacks.append(callback)

    def _refuse_file(self, key: Key) -> None:
        if place := self.file_of(key):
            raise InvalidInputError(f"{key} lives in {place}; change it there")

    def _commit(self, after: dict[Key, Object], changes: list[Change], dry_run: bool) -> None:
        if dry_run or all(change.result == "unchanged" for change in changes):
            return
        new = dataclasses.replace(self._applied, revision=self.revision + 1, objects=after)
        applied.save(self._path, new)
        self._applied, self._unsaved = new, ()
        self.revision = new.revision
        self._merge()
        self._notify()

    def _merge(self) -> None:
        from_files = {key: read.object for key, read in self._files.reads.items()}
        stored = self._applied.objects if self._followed is None else self._followed
        whole = {**stored, **from_files}
        self.known = whole.keys()
        self._objects = withheld.without(whole, self._why_withheld)
        self.closed = (*withheld.closed(whole, self._objects), *self._closed_elsewhere)
        hidden = tuple(
            read.finding((), "an applied object of this name is hidden by this file", "warning")
            for key, read in self._files.reads.items()
            if key in stored
        )
        self._findings = (*self._load_findings, *self._files.findings, *hidden)

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()


def _dated(found: Object, before: Object | None, now: Callable[[], str]) -> Object:
    """Return the object with the time at which it was first stored: routes are merged oldest
    first."""
    given = before.metadata.creation_timestamp if before else found.metadata.creation_timestamp
    meta = msgspec.structs.replace(
        found.metadata, creation_timestamp=given or now(), resource_version=None, generate_name=""
    )
    return msgspec.structs.replace(found, metadata=meta)


def _result(before: Object | None, now: Object) -> str:
    if before is None:
        return "created"
    return "unchanged" if before == now else "configured"


def _change(key: Key, result: str) -> Change:
    return Change(key.kind, key.namespace, key.name, result)
