"""The content of a store at one moment, and the changes that can be made to it. Pure.

The values are frozen, so that a thread can work on them while the store changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import msgspec

from meshd.api.base import Key, Object
from meshd.api.gateway.types import GatewaySelection
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.read import Read
from meshd.base.errors import InvalidInputError
from meshd.config.applied import Applied
from meshd.wire import Change


@dataclasses.dataclass(frozen=True, slots=True)
class Transaction:
    """A change: ``after`` is the content after it, with virtual addresses that may be older."""

    after: Applied
    changes: tuple[Change, ...]
    changes_nothing: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """The content at one moment. ``objects``: all that are in force."""

    objects: Mapping[Key, Object]
    reads: Mapping[Key, Read]
    """The objects that are in files."""
    applied: Applied
    now: Callable[[], str]
    root_namespace: str
    gateway_selection: GatewaySelection

    def has(self, key: Key) -> bool:
        """Return whether there is an object, in force or not."""
        applied = self.applied
        return any(key in found for found in (self.objects, applied.objects, applied.unusable))

    def file_of(self, key: Key) -> str:
        """Return ``file:line`` of an object; empty if the object is in no file."""
        read = self.reads.get(key)
        return read.place if read else ""

    def dated(self, found: Object) -> Object:
        """Return an object as ``put`` stores it."""
        return _dated(found, self.applied.objects.get(found.key), self.now)

    def put(self, objects: Iterable[Object]) -> Transaction:
        """Create or replace objects, all of them or none. Raises InvalidInputError if an object is
        in a file."""
        after = self.applied.copy()
        changes: list[Change] = []
        for found in objects:
            self._refuse_file(found.key)
            before = after.objects.get(found.key)
            now = _dated(found, before, self.now)
            mended = after.unusable.pop(found.key, None) is not None
            if isinstance(found, PeerAuthentication) and found.is_for_the_mesh(self.root_namespace):
                # The policy of the whole mesh replaces a lost one.
                after = dataclasses.replace(after, lost="")
            changes.append(_change(found.key, "configured" if mended else _result(before, now)))
            after.objects[found.key] = now
        return self._transaction(after, changes)

    def delete(self, keys: Iterable[Key]) -> Transaction:
        """Delete objects, all of them or none. Raises InvalidInputError if an object is not found
        or is in a file."""
        after = self.applied.copy()
        changes: list[Change] = []
        for key in keys:
            self._refuse_file(key)
            usable, unusable = after.objects.pop(key, None), after.unusable.pop(key, None)
            if usable is None and unusable is None:
                raise InvalidInputError(f"{key} not found")
            changes.append(_change(key, "deleted"))
        return self._transaction(after, changes)

    def _refuse_file(self, key: Key) -> None:
        if place := self.file_of(key):
            raise InvalidInputError(f"{key} is in the file {place}; change it there")

    def _transaction(self, after: Applied, changes: list[Change]) -> Transaction:
        nothing = all(change.result == "unchanged" for change in changes)
        return Transaction(after, tuple(changes), nothing and after.lost == self.applied.lost)


def _dated(found: Object, before: Object | None, now: Callable[[], str]) -> Object:
    """Return the object with the time at which it was first stored.

    The time orders routes when they are merged: the oldest come first.
    """
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
