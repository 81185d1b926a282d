"""Stores the objects that configure the mesh: those in files, and those that were applied.

A transaction is carried out as a whole, on disk first and then in memory, or not at all.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypedDict, Unpack

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.api.gateway.types import SELECTION, GatewaySelection
from meshd.api.write import to_json
from meshd.api.yaml import read_path
from meshd.base.errors import SystemRefusedError
from meshd.base.json_values import mapping_in
from meshd.base.moments import rfc3339
from meshd.base.threads import in_thread
from meshd.config import withheld
from meshd.config.applied import Applied, AppliedFile
from meshd.config.files import ConfigDirectory, Content
from meshd.config.merging import Followed, Sources, findings, merged
from meshd.config.moment import Moment, Transaction
from meshd.config.policy_digest import digest_of
from meshd.config.withheld import Closed, Replacement


@dataclasses.dataclass(frozen=True, slots=True)
class WrittenAddresses:
    """Virtual addresses by host."""

    addresses: Mapping[str, tuple[str, ...]]
    unsaved: tuple[Finding, ...] = ()
    """Why the addresses would be lost at a restart; empty: they are on disk."""


class _Changed(TypedDict, total=False):
    """The fields of ``Sources`` that change."""

    files: Content
    applied: Applied
    followed: Followed
    of_cluster: Followed
    why_withheld: Callable[[Object], str] | None
    why_given_up: Callable[[Object], str]
    why_nothing: str


def _now() -> str:
    return rfc3339(time.time())


class Store:
    """Objects by key, with a revision that grows with each change."""

    def __init__(
        self,
        directory: Path,
        state: Path,
        now: Callable[[], str] = _now,
        root_namespace: str = "istio-system",
        gateway_selection: GatewaySelection = SELECTION,
    ) -> None:
        """Open the store.

        ``directory`` holds the administrator's files; ``state`` is meshd's own directory, of mode
        0700. Raises SystemRefusedError if ``state`` cannot be read.
        """
        self._root = root_namespace
        self._gateway_selection: GatewaySelection = gateway_selection
        self._path = state / "applied.json"
        self._files = ConfigDirectory(directory, state / "config.d")
        self._file = AppliedFile(self._path)
        self._addresses: Mapping[str, tuple[str, ...]] = self._file.content.addresses
        self._now = now
        self._unsaved: tuple[Finding, ...] = ()
        self._callbacks: list[Callable[[], None]] = []
        self._announce: Callable[[Mapping[Key, Object]], None] = lambda _: None
        self._followed: Followed | None = None
        self.policies_in_use: frozenset[Key] = frozenset()
        """The AuthorizationPolicies that were there when nothing was lost; see that module."""
        self.revision = self._file.content.revision
        self._files.content = self._files.look() or self._files.content
        self._sources = Sources(str(self._path), self._files.content, self._file.content)
        self._merge()

    @property
    def objects(self) -> Mapping[Key, Object]:
        """Return all objects in force. A change makes a new mapping; this one stays as it is."""
        return self._merged.objects

    @property
    def addresses(self) -> Mapping[str, tuple[str, ...]]:
        """Return the virtual addresses that ``keep_addresses`` was last given."""
        return self._addresses

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the findings about the present files, and about stored objects that cannot be
        used; ``AcceptedBefore`` has those about all others."""
        return (*self._findings, *self._unsaved)

    @property
    def stored(self) -> tuple[Mapping[Key, Object], str]:
        """Return the objects that are in no file of the administrator, and the path of theirs."""
        return self._sources.stored, "" if self._sources.followed else str(self._path)

    @property
    def moment(self) -> Moment:
        """Return the present content."""
        return Moment(
            self._merged.objects,
            self._files.content.reads,
            self._sources.applied,
            self._now,
            self._root,
            self._gateway_selection,
        )

    def is_current(self, moment: Moment) -> bool:
        """Return whether the configuration is as it was at a moment."""
        return moment.objects is self._merged.objects and moment.reads is self._files.content.reads

    def file_of(self, key: Key) -> str:
        """Return ``file:line`` of an object; empty if the object is in no file."""
        return self.moment.file_of(key)

    def is_gone(self, key: Key) -> bool:
        """Return whether an object does not exist. One that is not in force does, and one may that
        was in what cannot be read."""
        return not self._merged.is_content_lost and key not in self.known

    def place_of(self, key: Key, field: str) -> str:
        """Return ``file:line`` of a field, such as ``spec.http[1]``; empty if the object is in no
        file."""
        read = self._files.content.reads.get(key)
        return read.place_of(read_path(field)) if read else ""

    def follow(
        self,
        objects: Mapping[Key, Object],
        closed: Collection[Closed] = (),
        lost: tuple[str, ...] = (),
        unread: Collection[Key] = (),
    ) -> None:
        """Put a server's objects in force, in place of all objects that were ever applied here.

        ``closed``: the replacements of objects that could not be taken. ``lost``: paths of content
        that was received before and cannot be read. ``unread``: all objects that could not be
        taken.
        """
        followed = Followed(objects, closed, lost, unread)
        if followed != self._sources.followed:
            self.revision += 1
            self._merge(followed=followed)
            self.tell()

    def surround(self, of_cluster: Followed) -> None:
        """Put a cluster's objects in force, where none of the same name is stored or in a file."""
        if of_cluster != self._sources.of_cluster:
            self.revision += 1
            self._merge(of_cluster=of_cluster)
            self.tell()

    def withhold(
        self,
        why: Callable[[Object], str] | None,
        why_given_up: Callable[[Object], str] = lambda _: "",
    ) -> None:
        """Withhold the objects for which ``why`` returns a reason, from now on; None: no object.

        ``why_given_up`` does so for their replacements. Where one of those is withheld, everything
        counts as lost that the object may have closed.
        """
        self._merge(why_withheld=why, why_given_up=why_given_up)

    def withhold_all(self, why: str) -> None:
        """Put nothing in force from now on. All of it counts as lost."""
        self._merge(why_nothing=why)

    @property
    def standing(self) -> tuple[Object, ...]:
        """Return all replacements of objects that are in force."""
        return self._merged.standing

    @property
    def closed_keys(self) -> frozenset[Key]:
        """Return the keys of all objects that have a replacement, in force or not."""
        return frozenset(one.key for one in (*self.standing, *self.given_up))

    def digest_of(self, key: Key) -> str:
        """Return the digest of a policy that is stored, although it is not in force; empty if it is
        not known."""
        found = self._merged.whole.get(key)
        if key.kind in withheld.POLICIES and found and not isinstance(found, Replacement):
            return digest_of(to_json(found))
        unusable = self._merged.unusable.get(key)
        return digest_of(mapping_in(unusable.value)) if unusable else ""

    def keep_addresses(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Keep virtual addresses across restarts, or until the next restart if the disk refuses."""
        self.take_addresses(self.write_addresses(addresses))

    def write_addresses(self, addresses: Mapping[str, tuple[str, ...]]) -> WrittenAddresses:
        """Write virtual addresses, and return them for ``take_addresses``.

        This may be called in a thread: nothing but the file changes.
        """
        try:
            self._file.replace_addresses(addresses)
        except SystemRefusedError as error:
            reason = f"{error}; virtual addresses of services may change at a restart"
            return WrittenAddresses(addresses, (Finding("", 0, reason),))
        return WrittenAddresses(addresses)

    def take_addresses(self, written: WrittenAddresses) -> None:
        self._addresses, self._unsaved = written.addresses, written.unsaved

    def refresh(self) -> bool:
        """Read the files again; return whether they changed. Tell the subscribers of changes."""
        unsaved = self._unsaved
        if unsaved:
            self.keep_addresses(self._addresses)
        content = self._look()
        self._take(content)
        if content or self._unsaved != unsaved:
            self.tell()
        return content is not None

    def _look(self) -> Content | None:
        """Return the content of the files if it is another one, announced."""
        if content := self._files.look():
            before = self._files.content.reads
            reads = content.reads.items()
            self._announce({key: one.object for key, one in reads if before.get(key) is not one})
        return content

    def _take(self, content: Content | None) -> None:
        """Put in force what the files have."""
        if content:
            self._files.content = content
            self.revision += 1
            self._merge(files=content)

    async def watch(self, interval: float = 1.0) -> None:
        """Run ``refresh`` every ``interval`` seconds until cancelled, with the files read in a
        thread."""
        while True:
            await asyncio.sleep(interval)
            unsaved = self._unsaved
            if unsaved:
                self.keep_addresses(self._addresses)
            content = await in_thread("reading the files of the configuration", self._look)
            self._take(content)
            if content or self._unsaved != unsaved:
                await asyncio.sleep(0)  # others have their turn: either step may be long
                self.tell()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called after each change, once the change is in force."""
        self._callbacks.append(callback)

    def announce(self, callback: Callable[[Mapping[Key, Object]], None]) -> None:
        """Have ``callback`` called with new objects before they are in force, in whichever thread
        has read or written them; ``taken`` tells when they have been taken."""
        self._announce = callback

    def taken(self, objects: Mapping[Key, Object]) -> frozenset[Key]:
        """Return the keys of the objects that are stored or in a file, in force or not: these very
        ones, not equal ones."""
        stored, reads = self._sources.applied.objects, self._files.content.reads
        return frozenset(
            key
            for key, one in objects.items()
            if stored.get(key) is one or (key in reads and reads[key].object is one)
        )

    def write(self, transaction: Transaction) -> Applied:
        """Write the result of a transaction, announce it, and return it for ``adopt``.

        This may be called in a thread: nothing but the file changes. Raises SystemRefusedError if
        the disk refuses; then the file is as it was.
        """
        after = dataclasses.replace(transaction.after, revision=self.revision + 1)
        before = self._sources.applied.objects
        written = self._file.replace(after)
        objects = written.objects.items()
        self._announce({key: one for key, one in objects if before.get(key) != one})
        return written

    def adopt(self, written: Applied) -> None:
        """Put in force what was written. ``tell`` comes after it, and both may be long."""
        self._unsaved = ()
        self.revision = max(written.revision, self.revision + 1)
        self._merge(applied=written)

    def tell(self) -> None:
        """Tell the subscribers that what is in force has changed."""
        for callback in self._callbacks:
            callback()

    def settle(self) -> None:
        """Have the file of what was applied as a whole, so that former versions of meshd can read
        it. Raises SystemRefusedError; then nothing is lost."""
        self._file.settle()

    def _merge(self, **changed: Unpack[_Changed]) -> None:
        self._sources = dataclasses.replace(self._sources, **changed)
        found = self._merged = merged(self._sources)
        self.known, self.lost = found.known, found.lost
        self.closed, self.given_up = found.closed, found.given_up
        self._findings = findings(self._sources, found, self._file.findings)
