"""A permanent connection to another role, on which the newest message counts.

Both ends send the whole of what they want or see each time, so that after a break only the newest
message has to be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.wire import channel

_log = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
"""Seconds between attempts to reach a role that does not answer."""


class Link:
    """Sends a role what is wanted, and passes on its answers."""

    def __init__(self, path: Path, receive: Callable[[wire.AnyMessage], None]) -> None:
        self._path = path
        self._receive = receive
        self._wanted: wire.Message | None = None
        self._changed = asyncio.Event()

    def tell(self, message: wire.Message) -> None:
        """Send what is wanted from now on, unless it is the same as before."""
        if message != self._wanted:
            self._wanted = message
            self._changed.set()

    async def run(self) -> None:
        """Run until cancelled."""
        pause, said = _FIRST_PAUSE, ""
        while True:
            try:
                async with await channel.connect(self._path) as connection:
                    await self._talk(connection)
                pause = _FIRST_PAUSE
            except MeshdError as error:
                if isinstance(error, InvalidInputError) and str(error) != said:
                    said = str(error)
                    _log.error("%s: %s", self._path, said, extra={"MESHD_EVENT": "link"})
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _talk(self, connection: channel.Connection) -> None:
        """Talk until the other end is gone."""
        self._changed.set()
        sender = asyncio.create_task(self._send(connection))
        try:
            while (message := await connection.receive()) is not None:
                self._receive(message)
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, MeshdError):
                await sender

    async def _send(self, connection: channel.Connection) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._wanted is not None:
                await connection.send(self._wanted)
