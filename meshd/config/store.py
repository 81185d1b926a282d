"""Stores the objects that configure the mesh: those in files, and those that were applied.

A transaction is carried out as a whole, on disk first and then in memory, or not at all.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.api.gateway.types import GatewaySelection
from meshd.api.write import to_json
from meshd.api.yaml import read_path
from meshd.base.errors import SystemRefusedError
from meshd.base.json_values import mapping_in
from meshd.base.moments import rfc3339
from meshd.base.threads import in_thread
from meshd.config import applied, withheld
from meshd.config.applied import Applied, AppliedFile
from meshd.config.files import ConfigDirectory, Content
from meshd.config.moment import Moment, Transaction
from meshd.config.policy_digest import digest_of
from meshd.config.unusable import Unusable
from meshd.config.unusable import closed as closed_of
from meshd.config.withheld import Closed, Replacement

_CORRECT: Final = "correct the object, or delete it"
_APPLY: Final = "apply it again or delete it"
_UNTIL_TOLD: Final = "this ends when the server answers, and has lost nothing itself"


@dataclasses.dataclass(frozen=True, slots=True)
class WrittenAddresses:
    """Virtual addresses by host."""

    addresses: Mapping[str, tuple[str, ...]]
    unsaved: tuple[Finding, ...] = ()
    """Why the addresses would be lost at a restart; empty: they are on disk."""


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
        gateway_selection: GatewaySelection = "any-namespace",
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
        self._applied, self._load_findings = self._file.content, self._file.findings
        self._addresses: Mapping[str, tuple[str, ...]] = self._applied.addresses
        self._now = now
        self._unsaved: tuple[Finding, ...] = ()
        self._callbacks: list[Callable[[], None]] = []
        self._announce: Callable[[Mapping[Key, Object]], None] = lambda _: None
        self._followed: Mapping[Key, Object] | None = None
        self._closed_elsewhere: Collection[Closed] = ()
        self._lost_elsewhere: tuple[str, ...] = ()
        self._unread_elsewhere: Collection[Key] = ()
        self._is_content_lost = False
        self._why_withheld: Callable[[Object], str] | None = None
        self._why_given_up: Callable[[Object], str] = lambda _: ""
        self._why_nothing = ""
        self._policies: tuple[object, tuple[Replacement, ...]] = None, ()
        """The replacements of policies among some objects, and these objects."""
        self._unusable: Mapping[Key, Unusable] = {}
        """What is stored or in files, and cannot be in force any more."""
        self._whole: Mapping[Key, Object] = {}
        """All that is stored, in force or not."""
        self.known: Collection[Key] = ()
        """The keys of all objects that are stored or in files, in force or not, readable or not."""
        self.closed: Collection[Closed] = ()
        """The replacements of objects that have hosts and are not in force."""
        self.given_up: Collection[Object] = ()
        """The replacements that are not in force either."""
        self.lost: tuple[str, ...] = ()
        """Paths of content that was in force and cannot be read, and objects without a replacement
        in force."""
        self.policies_in_use: frozenset[Key] = frozenset()
        """The AuthorizationPolicies that were there when nothing was lost; see that module."""
        self.revision = self._applied.revision
        self._files.content = self._files.look() or self._files.content
        self._merge()

    @property
    def objects(self) -> Mapping[Key, Object]:
        """Return all objects in force. A change makes a new mapping; this one stays as it is."""
        return self._objects

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
        if self._followed is None:
            return self._applied.objects, str(self._path)
        return self._followed, ""

    @property
    def moment(self) -> Moment:
        """Return the present content."""
        return Moment(
            self._objects,
            self._files.content.reads,
            self._applied,
            self._now,
            self._root,
            self._gateway_selection,
        )

    def is_current(self, moment: Moment) -> bool:
        """Return whether the configuration is as it was at a moment."""
        return moment.objects is self._objects and moment.reads is self._files.content.reads

    def file_of(self, key: Key) -> str:
        """Return ``file:line`` of an object; empty if the object is in no file."""
        return self.moment.file_of(key)

    def is_gone(self, key: Key) -> bool:
        """Return whether an object does not exist. One that is not in force does, and one may that
        was in what cannot be read."""
        return not self._is_content_lost and key not in self.known

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
        before = self._followed, self._closed_elsewhere, self._lost_elsewhere
        if (objects, closed, lost) != before or unread != self._unread_elsewhere:
            self._followed, self._closed_elsewhere, self._lost_elsewhere = objects, closed, lost
            self._unread_elsewhere = unread
            self.revision += 1
            self._merge()
            self._notify()

    def withhold(
        self,
        why: Callable[[Object], str] | None,
        why_given_up: Callable[[Object], str] = lambda _: "",
    ) -> None:
        """Withhold the objects for which ``why`` returns a reason, from now on; None: no object.

        ``why_given_up`` does so for their replacements. Where one of those is withheld, everything
        counts as lost that the object may have closed.
        """
        self._why_withheld, self._why_given_up = why, why_given_up
        self._merge()

    def withhold_all(self, why: str) -> None:
        """Put nothing in force from now on. All of it counts as lost."""
        self._why_nothing = why
        self._merge()

    @property
    def standing(self) -> tuple[Object, ...]:
        """Return all replacements of objects that are in force."""
        if self._policies[0] is not self._objects:
            found = (one for one in self._objects.values() if isinstance(one, Replacement))
            self._policies = self._objects, tuple(found)
        return (*self._policies[1], *self.closed)

    @property
    def closed_keys(self) -> frozenset[Key]:
        """Return the keys of all objects that have a replacement, in force or not."""
        return frozenset(one.key for one in (*self.standing, *self.given_up))

    def digest_of(self, key: Key) -> str:
        """Return the digest of a policy that is stored, although it is not in force; empty if it is
        not known."""
        found = self._whole.get(key)
        if key.kind in withheld.POLICIES and found and not isinstance(found, Replacement):
            return digest_of(to_json(found))
        unusable = self._unusable.get(key)
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
            self._notify()
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
            self._merge()

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
                self._notify()

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
        stored, reads = self._applied.objects, self._files.content.reads
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
        before = self._applied.objects
        written = self._file.replace(after)
        objects = written.objects.items()
        self._announce({key: one for key, one in objects if before.get(key) != one})
        return written

    def adopt(self, written: Applied) -> None:
        """Put in force what was written."""
        self._applied, self._unsaved = written, ()
        self.revision = max(written.revision, self.revision + 1)
        self._merge()
        self._notify()

    def _merge(self) -> None:
        from_files = {key: read.object for key, read in self._files.content.reads.items()}
        stored = self._applied.objects if self._followed is None else self._followed
        applied_here = self._applied.unusable if self._followed is None else {}
        in_files = self._files.content.unusable
        if in_files:  # which hide what was applied, too
            stored = {key: one for key, one in stored.items() if key not in in_files}
        unusable = self._unusable = {**applied_here, **in_files}
        whole = self._whole = {**stored, **from_files}
        unread = self._unread_elsewhere if self._followed is not None else ()
        self.known = {*whole, *unread, *unusable}
        why = self._why_withheld
        self._objects = withheld.without(whole, why) if why else whole
        closed = (
            *(withheld.closed(whole, self._objects) if why else ()),
            *closed_of(unusable.values()),
            *self._closed_elsewhere,
        )
        self.closed = tuple(one for one in closed if one.key not in self._objects)
        self._give_up()
        own = (self._applied.lost,) if self._applied.lost else ()
        content = (
            *self._files.content.lost,
            *(own if self._followed is None else self._lost_elsewhere),
        )
        self._is_content_lost = bool(content)
        self.lost = (
            *content,
            *(str(one.key) for one in self.given_up),
        )
        if self._why_nothing:
            self._objects, self.closed, self.given_up = {}, (), ()
            self.lost = (self._why_nothing,)
        hidden = tuple(
            read.finding((), "an applied object of this name is hidden by this file", "warning")
            for key, read in self._files.content.reads.items()
            if key in stored
        )
        self._findings = (
            *self._load_findings,
            *self._about_lost(),
            *self._unusable_findings(),
            *self._files.content.findings,
            *hidden,
        )

    def _give_up(self) -> None:
        """Withhold replacements, too."""
        self.given_up = tuple(one for one in self.standing if self._why_given_up(one))
        if keys := {one.key for one in self.given_up}:
            self._objects = {key: one for key, one in self._objects.items() if key not in keys}
            self.closed = tuple(one for one in self.closed if one.key not in keys)

    def _about_lost(self) -> Iterator[Finding]:
        """Yield findings about content that cannot be read, unless loading has reported it."""
        given_up = {str(one.key) for one in self.given_up}
        for key in sorted(given_up):
            reason = (
                f"{key} is not in force, nor is its closed replacement, because processes of meshd"
                f" died with both. {applied.LOST}, but for those that it may have been about;"
                f" {_CORRECT}"
            )
            yield Finding("", 0, reason)
        remedy = applied.UNTIL_REPLACED if self._followed is None else _UNTIL_TOLD
        if self._why_nothing:
            yield Finding("", 0, f"{self._why_nothing}. {applied.LOST}")
            return
        for path in (path for path in self.lost if path not in given_up):
            if path != self._applied.lost or not self._load_findings:
                reason = f"was in force and cannot be read. {applied.LOST}; {remedy}"
                yield Finding(path, 1, reason)

    def _unusable_findings(self) -> Iterator[Finding]:
        """Yield findings about stored objects that cannot be used."""
        if self._followed is None:
            for one in self._applied.unusable.values():
                yield one.finding(str(self._path), _APPLY)

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()
