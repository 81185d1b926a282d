"""What is to be removed of a client, and waits until no open connection can ask for it. Pure.

A client that takes up a listener keeps the connections of the former one, or of chains that it has
no more, for its drain time. Requests on them still go to the clusters that those name; a client
answers requests for a cluster that it does not have with 503.
"""

from __future__ import annotations

from collections.abc import Iterable


class Leaving:
    """The names of what one client is to be told to remove. ``drains``: it keeps connections of
    former listeners at all."""

    def __init__(self, *, drains: bool) -> None:
        self._drains = drains
        self._news: frozenset[str] = frozenset()
        """Names that have waited for less than one period."""
        self._waiting: frozenset[str] = frozenset()
        """Names that have waited for less than the drain time, perhaps."""
        self._free: frozenset[str] = frozenset()

    @property
    def waits(self) -> bool:
        """Return whether anything waits."""
        return bool(self._news or self._waiting)

    def note(self, names: Iterable[str]) -> None:
        """Note all that is to be removed by now."""
        due = frozenset(names)
        self._free &= due
        self._waiting &= due
        self._news = due - self._waiting - self._free if self._drains else frozenset()

    def end_period(self) -> None:
        """Note that a drain time has passed since the last call, or since the first name came."""
        self._free |= self._waiting
        self._waiting, self._news = self._news, frozenset()

    def stays(self, name: str) -> bool:
        """Return whether a name is not to be removed yet."""
        return name in self._news or name in self._waiting
