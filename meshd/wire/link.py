"""A permanent connection to another role, on which the newest message counts.

Both ends send the whole of what they want or see each time, so that after a break only the newest
message has to be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base.backoff import Backoff
from meshd.base.errors import InvalidInputError, MeshdError, UnreachableError
from meshd.base.once import SaidOnce
from meshd.base.tasks import first_of
from meshd.wire import channel

Split = Callable[[wire.Message], Iterable[wire.Message]]
"""Returns the messages to send for one that has all."""
_BACKOFF: Final = Backoff(0.05, 2.0)
"""Between attempts to reach a role that does not answer, or not with messages."""


class Link:
    """Sends a role what is wanted, and passes on its answers.

    ``splitting``: returns what splits the messages of one connection.
    """

    def __init__(
        self,
        path: Path,
        receive: Callable[[wire.AnyMessage], None],
        splitting: Callable[[], Split] = lambda: _whole,
    ) -> None:
        self._path = path
        self._receive = receive
        self._splitting = splitting
        self._wanted: wire.Message | None = None
        self._changed = asyncio.Event()

    def tell(self, message: wire.Message) -> None:
        """Send what is wanted from now on, unless it is the same as before."""
        if message != self._wanted:
            self._wanted = message
            self._changed.set()

    async def run(self) -> None:
        """Run until cancelled."""
        failures, said = 0, SaidOnce({"MESHD_EVENT": "link"})
        while True:
            failures += 1
            try:
                async with await channel.connect(self._path) as connection:
                    if await self._talk(connection):
                        failures = 1
                        said.say(())
            except InvalidInputError as error:
                said.say((f"{self._path}: {error}",))
            except MeshdError:
                pass
            await asyncio.sleep(_BACKOFF.pause(failures))

    async def _talk(self, connection: channel.Connection[wire.AnyMessage]) -> bool:
        """Talk until the other end is gone; return whether it has said anything.

        Raises InvalidInputError for what is not a message.
        """
        self._changed.set()
        answered = False

        async def receive() -> None:
            nonlocal answered
            while (message := await connection.receive()) is not None:
                self._receive(message)
                answered = True

        with contextlib.suppress(UnreachableError):
            await first_of(receive(), self._send(connection))
        return answered

    async def _send(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        split = self._splitting()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._wanted is not None:
                await connection.send_all(split(self._wanted))


def _whole(message: wire.Message) -> Iterable[wire.Message]:
    return (message,)
