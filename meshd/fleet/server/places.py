"""The places of a server for connections, and which connection gives way when there are none. Pure.

A newcomer is always admitted, and the oldest connection of the owner with the most ends: honest
clients complete a handshake in moments, so connections that are held open are lost.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Places(Generic[T]):
    """At most ``most`` places in all, ``most_of_one`` for each owner."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._held: dict[str, dict[T, None]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def enter(self, owner: str, who: T) -> T | None:
        """Return the one that has to go for it; it has left its place already."""
        held = self._held.setdefault(owner, {})
        held[who] = None
        self._total += 1
        if len(held) > self._most_of_one:
            return self._evict(owner)
        if self._total > self._most:
            return self._evict(max(self._held, key=lambda each: len(self._held[each])))
        return None

    def leave(self, owner: str, who: T) -> None:
        """Give up a place, perhaps one that was given up before."""
        held = self._held.get(owner, {})
        if who not in held:
            return
        del held[who]
        self._total -= 1
        if not held:
            del self._held[owner]

    def _evict(self, owner: str) -> T:
        oldest = next(iter(self._held[owner]))
        self.leave(owner, oldest)
        return oldest
