"""Finds stored objects that would be refused today: another version accepted them, or a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from meshd.api.base import Key, Object
from meshd.api.counts import too_many
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.texts import controlled, is_sent
from meshd.api.yaml import show_path
from meshd.base.sequence_difference import SequenceDifference

_Refused: TypeAlias = tuple[Path, str] | None
"""The first place of an object that would be refused today, and why; None: there is none."""


class AcceptedBefore:
    """Checks each object once. That takes a while, so it runs in a thread."""

    def __init__(self) -> None:
        self._objects: tuple[Object, ...] = ()
        self._refused: tuple[_Refused, ...] = ()
        """Of each of these objects, what would be refused."""

    def findings(self, stored: Mapping[Key, Object], path: str) -> Iterator[Finding]:
        """Yield a finding for each such object; ``path``: the file of the stored objects."""
        self._look(tuple(stored.values()))
        if not any(self._refused):
            return
        for key, refused in zip(stored, self._refused, strict=True):
            if refused:
                reason = (
                    f"{key} is in force, as it was accepted before, but a change of it is refused:"
                    f" {show_path(refused[0])}: {refused[1]}"
                )
                yield Finding(path, 1, reason)

    def _look(self, objects: tuple[Object, ...]) -> None:
        difference = SequenceDifference.between(self._objects, objects)
        before = difference.of_old(self._objects), difference.of_old(self._refused)
        known = {id(one): refused for one, refused in zip(*before, strict=True)}
        looked = (
            known[id(one)] if id(one) in known else _refused_today(one)
            for one in difference.of_new(objects)
        )
        self._refused = difference.replaced(self._refused, looked)
        self._objects = objects


def _refused_today(found: Object) -> _Refused:
    """Return the first place of an object that would be refused today, and why; None if there is
    no such place, or if the object is closed for one, which is said where that is done."""
    unprintable = tuple(controlled(found))
    if any(is_sent(path) for path, _ in unprintable):
        return None
    return next(itertools.chain(too_many(found), unprintable), None)
