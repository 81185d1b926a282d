"""Remembers results by their inputs, so that a change costs only what depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, cast

_T = TypeVar("_T")


class Memo:
    """The memory of a compiler. Results that a round did not ask for are forgotten after it."""

    def __init__(self) -> None:
        self._before: dict[object, tuple[object, object]] = {}
        self._now: dict[object, tuple[object, object]] = {}

    def get(self, key: object, inputs: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """Return what ``make`` returns, or returned last time for this key if the inputs are equal.

        ``key`` is the kind of thing and its name; equal objects that are the same object compare at
        once, so callers pass what they have kept.
        """
        entry = self._now.get(key) or self._before.get(key)
        if entry is None or entry[0] != inputs:
            entry = (inputs, make())
        self._now[key] = entry
        return cast("_T", entry[1])  # a key is always used with one ``make``

    def each(
        self, key: object, inputs: tuple[object, ...], make: Callable[[], Iterator[_T]]
    ) -> tuple[_T, ...]:
        """Return several pieces as ``get`` returns one."""
        return self.get(key, inputs, lambda: tuple(make()))

    def end_round(self) -> None:
        self._before, self._now = self._now, {}
