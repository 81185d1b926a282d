"""Listeners that take connections, for a client that lacks what is behind them. Pure.

A client accepts an internal listener before it has the route tables that this one names, and uses
its former version until then. So listeners that are new to it follow the internal ones that are
published with them, as soon as it has these and their tables: they take no connection that those do
not know. They do not wait for internal ones that are published later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshd.xds.exchange import Response
from meshd.xds.resources import Resource


class Following:
    """Which listeners one client is not to be told yet."""

    def __init__(self) -> None:
        self.held_back: frozenset[str] = frozenset()
        self._new: frozenset[str] = frozenset()
        self._internal: frozenset[str] = frozenset()
        self._ready: frozenset[str] = frozenset()
        """New listeners of which the client was sent all that is behind them."""

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
        self._new = frozenset(found.keys() - held.keys() - self._internal if held else ())
        self._ready &= self._new
        if not self._internal:
            self._ready = self._new
        self.held_back = self._new if lacks_tables else self._new - self._ready

    def note_sent(self, response: Response) -> None:
        """Note what goes first."""
        if self._internal.issubset(one.name for one in response.resources):
            self._ready = self._new
