"""The places that a server has for connections, and which of them gives way when there are none.

Pure. Whoever comes is let in, and the oldest connection of whoever has most ends: honest clients
are through with a handshake in moments, so it is those that hold connections open that lose them.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Places(Generic[T]):
    """At most ``most`` in all, ``most_of_one`` of each owner."""

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
        """Also one that has left before."""
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
