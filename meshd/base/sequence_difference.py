"""The part in which two sequences differ."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class SequenceDifference:
    """What remains of two tuples without the objects with which both begin, and both end."""

    begin: int
    end: int
    """Counted from the end: 0 or below."""

    @classmethod
    def between(cls, old: Sequence[object], new: Sequence[object]) -> SequenceDifference:
        begin = _common(old, new)
        room = min(len(old), len(new)) - begin
        return cls(begin, -min(room, _common(reversed(old), reversed(new))))

    def of_old(self, old: tuple[_T, ...]) -> tuple[_T, ...]:
        return old[self.begin : len(old) + self.end]

    of_new = of_old

    def replaced(self, old: tuple[_T, ...], new: Iterable[_T]) -> tuple[_T, ...]:
        """Return the old sequence with the new one's part."""
        return (*old[: self.begin], *new, *old[len(old) + self.end :])


def _common(one: Iterable[object], other: Iterable[object]) -> int:
    """Return how many objects from the first on are the same."""
    count = 0
    for is_same in map(operator.is_, one, other):
        if not is_same:
            break
        count += 1
    return count
