"""One client's gRPC stream, in any variant of the protocol: reads requests, and writes answers.

What is written, and when, is for a state machine to say (``stream``, ``unordered``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar

import grpc.aio

from meshd.base.tasks import first_of

Asked = TypeVar("Asked")
Told = TypeVar("Told")
Asked_co = TypeVar("Asked_co", covariant=True)
Told_contra = TypeVar("Told_contra", contravariant=True)


class Endpoint(Protocol[Asked_co, Told_contra]):
    """This end of the stream: gRPC's context of a call, or what stands for it."""

    async def read(self) -> Asked_co:
        """Return the next message; ``grpc.aio.EOF`` after the last."""
        ...

    async def write(self, message: Told_contra, /) -> None: ...


Timers = Callable[[], Mapping[Callable[[], None], float]]
"""Returns what is to be called, and after how many seconds: each of them once it has been returned
for so long without interruption."""


def _none() -> Mapping[Callable[[], None], float]:
    return {}


class Deadlines:
    """When functions of timers are to be called, however often the timers are asked in between.

    A stream that is never silent for long would otherwise never call them.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._due: dict[Callable[[], None], float] = {}

    def next(self, now: float) -> float | None:
        """Return the first deadline, by the clock of ``now``; None if there is none."""
        self._due = {
            then: self._due.get(then, now + patience) for then, patience in self._timers().items()
        }
        return min(self._due.values(), default=None)

    def call(self, now: float) -> None:
        """Call what is due. The time of each begins anew."""
        for then in [then for then, at in self._due.items() if at <= now]:
            del self._due[then]
            then()


class Connection(Generic[Asked, Told]):
    """The stream. ``following`` returns the next message to write, or None."""

    def __init__(
        self,
        endpoint: Endpoint[Asked, Told],
        following: Callable[[], Told | None],
        timers: Timers = _none,
    ) -> None:
        self._endpoint = endpoint
        self._following = following
        self._deadlines = Deadlines(timers)
        self._bell = asyncio.Event()
        self._bell.set()
        self._hung_up = asyncio.Event()

    def ring(self) -> None:
        """Note that there may be something to write."""
        self._bell.set()

    def hang_up(self) -> None:
        """Have ``serve`` end."""
        self._hung_up.set()

    async def serve(self, receive: Callable[[Asked], Awaitable[None]]) -> None:
        """Serve until one end hangs up; raises what reading, writing or ``receive`` raises."""
        await first_of(self._read(receive), self._write(), self._hung_up.wait())

    async def _read(self, receive: Callable[[Asked], Awaitable[None]]) -> None:
        while (message := await self._endpoint.read()) is not grpc.aio.EOF:
            await receive(message)
            self._bell.set()

    async def _write(self) -> None:
        """Write one message at a time: a client that does not read delays no other."""
        clock = asyncio.get_running_loop().time
        while True:
            while (message := self._following()) is not None:
                await self._endpoint.write(message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._deadlines.next(clock())):
                    await self._bell.wait()
            self._bell.clear()
            self._deadlines.call(clock())
