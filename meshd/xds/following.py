"""Listeners that take connections, for a client that lacks what is behind them. Pure.

A client accepts an internal listener before it has the route tables that this one names, and uses
its former version until then. So listeners that are new to it follow the internal ones that are
published with them, as soon as it has these and their tables: they take no connection that those do
not know. They do not wait for internal ones that are published later. Listeners that change do the
same if one of the internal ones is new, since they may lead there from now on.

Of two that change, a listener that leaves more connections than before to one behind it comes after
that one, and a listener that leaves fewer comes before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from meshd.xds.resources import Resource
from meshd.xds.subscription import Response


class Following:
    """Which listeners one client is not to be told yet."""

    def __init__(self) -> None:
        self.held_back: frozenset[str] = frozenset()
        self._late: frozenset[str] = frozenset()
        self._internal: frozenset[str] = frozenset()
        self._ready: frozenset[str] = frozenset()
        """Late listeners of which the client was sent all that is behind them."""
        self._sent: dict[str, Resource] = {}
        """By name, what was sent last of listeners that leave connections to others."""
        self._leaving: dict[str, frozenset[str]] = {}
        """The connections that listeners leave to others, as the client has them."""

    def prepare(
        self,
        due: Iterable[str],
        published: Mapping[str, Resource],
        held: Mapping[str, str],
        *,
        lacks_tables: bool,
    ) -> None:
        """Decide before a response is made, when the client has answered the one before.

        ``due``: all listeners to send; ``held``: those that the client has; ``lacks_tables``: it
        was not given all route tables that it asked for.
        """
        found = {name: published[name] for name in due if name in published}
        self._internal = frozenset(name for name, one in found.items() if one.internal)
        # A client that has none takes connections when it has all.
        self._late = frozenset(self._waiting(found, held) if held else ())
        self._ready &= self._late
        if not self._internal:
            self._ready = self._late
        late = self._late if lacks_tables else self._late - self._ready
        if not lacks_tables:  # else it may still use the former versions
            self._note_held(held)
        second = self._second(found, published, lacks_tables=lacks_tables) if held else ()
        self.held_back = late.union(second)

    def _waiting(self, found: Mapping[str, Resource], held: Mapping[str, str]) -> AbstractSet[str]:
        """Return the due listeners that follow the internal ones."""
        others = found.keys() - self._internal
        return others if self._internal - held.keys() else others - held.keys()

    def _note_held(self, held: Mapping[str, str]) -> None:
        for name, one in self._sent.items():
            if held.get(name) == one.version:
                self._leaving[name] = one.left
        self._leaving = {name: left for name, left in self._leaving.items() if name in held}

    def _second(
        self,
        found: Mapping[str, Resource],
        published: Mapping[str, Resource],
        *,
        lacks_tables: bool,
    ) -> Iterator[str]:
        """Yield what comes second of each pair of listeners."""
        for name in {*found, *self._sent} & published.keys():
            one, before = published[name], self._leaving.get(name)
            if not one.behind or found.keys().isdisjoint((name, one.behind)):
                continue
            is_first = before is not None and one.left < before
            first, second = (name, one.behind) if is_first else (one.behind, name)
            if first in found or lacks_tables:
                yield second

    def note_sent(self, response: Response) -> None:
        """Note what goes first."""
        self._sent |= {one.name: one for one in response.resources if one.behind}
        if self._internal.issubset(one.name for one in response.resources):
            self._ready = self._late
