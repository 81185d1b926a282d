"""The part in which two sequences differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final, TypeVar

_T = TypeVar("_T")

_CHUNK: Final = 256
"""Objects that are compared at once: tuples that share their objects are compared by identity,
without a step of the interpreter for each."""


@dataclasses.dataclass(frozen=True, slots=True)
class SequenceDifference:
    """What remains of two tuples without the equal objects with which both begin, and both end."""

    begin: int
    end: int
    """Counted from the end: 0 or below."""

    @classmethod
    def between(cls, old: tuple[object, ...], new: tuple[object, ...]) -> SequenceDifference:
        shorter = min(len(old), len(new))
        begin = _common_begin(old, new, shorter)
        return cls(begin, -_common_end(old, new, shorter - begin))

    def of_old(self, old: tuple[_T, ...]) -> tuple[_T, ...]:
        return old[self.begin : len(old) + self.end]

    of_new = of_old

    def replaced(self, old: tuple[_T, ...], new: Iterable[_T]) -> tuple[_T, ...]:
        """Return the old sequence with the new one's part."""
        return (*old[: self.begin], *new, *old[len(old) + self.end :])


def _common_begin(old: tuple[object, ...], new: tuple[object, ...], most: int) -> int:
    """Return how many objects from the first on are equal, of ``most``."""
    for start in range(0, most, _CHUNK):
        part = slice(start, min(start + _CHUNK, most))
        if old[part] != new[part]:
            return start + _equal(old[part], new[part])
    return most


def _common_end(old: tuple[object, ...], new: tuple[object, ...], most: int) -> int:
    """Return how many objects from the last on are equal, of ``most``."""
    for start in range(0, most, _CHUNK):
        stop = min(start + _CHUNK, most)
        of_old = old[len(old) - stop : len(old) - start]
        of_new = new[len(new) - stop : len(new) - start]
        if of_old != of_new:
            return start + _equal(reversed(of_old), reversed(of_new))
    return most


def _equal(one: Iterable[object], other: Iterable[object]) -> int:
    """Return how many objects from the first on are equal."""
    count = 0
    for first, second in zip(one, other, strict=True):
        if first is not second and first != second:
            break
        count += 1
    return count
