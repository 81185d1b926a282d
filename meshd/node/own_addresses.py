"""This host's own addresses at present."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd.base import own_addresses


class OwnAddresses:
    def __init__(self) -> None:
        self._subscribers: list[Callable[[], None]] = []
        self.preferred: tuple[str, ...] = ()
        """By which others reach this host, IPv4 first."""
        self.every: tuple[str, ...] = ()
        self._look()

    def subscribe(self, changed: Callable[[], None]) -> None:
        self._subscribers.append(changed)

    async def run(self) -> None:
        """Run until cancelled."""
        watch = own_addresses.Watch(self.look)
        try:
            self.look()  # whatever came before the watch
            await asyncio.get_running_loop().create_future()
        finally:
            watch.close()

    def look(self) -> None:
        """Look at the addresses, which may have changed."""
        before = self.preferred, self.every
        self._look()
        if before != (self.preferred, self.every):
            for tell in self._subscribers:
                tell()

    def _look(self) -> None:
        self.preferred, self.every = own_addresses.preferred(), own_addresses.every()
