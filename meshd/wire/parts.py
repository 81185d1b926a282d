"""Splits what server and mesh role share into messages of bounded size, and puts it together again.

A message has only the part of a sequence that differs from the one that was told last on the same
connection, so that the work follows the change. The first one on a connection begins with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec

from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.base.sequence_difference import SequenceDifference
from meshd.model.workload import Workload
from meshd.wire.message import Message
from meshd.wire.sharing import Follow, Shared, Splice

_T = TypeVar("_T")
_MOST: Final = 200
"""Objects or workloads in one message: encoding so many takes about a millisecond."""
_NOTHING: Final = Splice(0, 0)


class _Told(Generic[_T]):
    """A sequence as it was told last on a connection."""

    def __init__(self) -> None:
        self._items: tuple[_T, ...] | None = None

    def parts(self, items: tuple[_T, ...]) -> Iterator[tuple[tuple[_T, ...], Splice | None]]:
        """Yield what makes the sequence of the one that was told last: items, and where they
        belong; None: they are all."""
        before, self._items = self._items, items
        if before is None:
            begin, removed, new = 0, None, items
        else:
            found = SequenceDifference.between(before, items)
            begin, removed, new = found.begin, len(found.of_old(before)), found.of_new(items)
            if not removed and not new:
                return
        yield new[:_MOST], None if removed is None else Splice(begin, removed)
        for start in range(_MOST, len(new), _MOST):
            yield new[start : start + _MOST], Splice(begin + start, 0)


class _Heard(Generic[_T]):
    """A sequence as it was heard last on a connection."""

    def __init__(self) -> None:
        self.items: list[_T] = []

    def take(self, items: tuple[_T, ...], at: Splice | None) -> None:
        """Raises InvalidInputError for a part that does not belong to what was heard before."""
        if at is None:
            self.items = list(items)
        elif at.begin + at.removed > len(self.items):
            raise InvalidInputError("a part of a message does not belong to the one before it")
        else:
            self.items[at.begin : at.begin + at.removed] = items


class Splitting:
    """What was told on one connection."""

    def __init__(self) -> None:
        self._workloads = _Told[Workload]()
        self._objects = _Told[JsonObject]()

    def split(self, message: Message) -> Iterator[Message]:
        """Yield the messages to send for one that has all."""
        match message:
            case Follow(workloads) if workloads is not None:
                parts = [Follow(some, at) for some, at in self._workloads.parts(workloads)]
                parts = parts or [Follow((), _NOTHING)]
            case Shared(workloads, objects, lost):
                parts = [
                    Shared((), some, lost, _NOTHING, at)
                    for some, at in (self._objects.parts(objects) if objects is not None else ())
                ]
                parts += [
                    Shared(some, None, lost, at) for some, at in self._workloads.parts(workloads)
                ]
                parts = parts or [Shared((), None, lost, _NOTHING)]
            case _:
                parts = [message]
        for number, part in enumerate(parts, 1):
            yield msgspec.structs.replace(part, more=True) if number < len(parts) else part


class Gathering:
    """What was heard on a connection. One after another may share it, since the first message of
    each begins with all."""

    def __init__(self) -> None:
        self._workloads = _Heard[Workload]()
        self._objects = _Heard[JsonObject]()
        self._has_objects = False
        """The messages that belong together have objects."""

    def follow(self, part: Follow) -> Follow | None:
        """Return the message with all; None: more of it is to come. Raises InvalidInputError."""
        if part.workloads is None:
            return part
        self._workloads.take(part.workloads, part.at)
        return None if part.more else Follow(tuple(self._workloads.items))

    def shared(self, part: Shared) -> Shared | None:
        """Return the message with all; None: more of it is to come. Raises InvalidInputError."""
        self._workloads.take(part.workloads, part.workloads_at)
        if part.objects is not None:
            self._objects.take(part.objects, part.objects_at)
            self._has_objects = True
        if part.more:
            return None
        has_objects, self._has_objects = self._has_objects, False
        objects = tuple(self._objects.items) if has_objects else None
        return Shared(tuple(self._workloads.items), objects, part.lost)
