"""The open streams of nodes, and their early end.

What a stream was allowed for may end while it is open: the certificate that it began with, or the
node's membership.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from typing import Final

from meshd.wire.joining import Peer

_LONGEST_SLEEP: Final = 60.0
"""Seconds after which the clock is looked at again: it may have been set, or the host slept."""


class Stream:
    """An open stream. ``cut`` is done when it has to end, and gives the reason; ``closed``: when it
    has."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()

    def end(self, reason: str) -> None:
        if not self.cut.done():
            self.cut.set_result(reason)


class OpenStreams:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._streams: set[Stream] = set()
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def opened(self, peer: Peer) -> Generator[Stream]:
        stream = Stream(peer)
        self._streams.add(stream)
        self._changed.set()
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            stream.closed.set()

    async def cut(self, node: str, reason: str) -> None:
        """Cut all streams of a node; they have ended when this returns."""
        ending = [stream for stream in self._streams if stream.peer.node == node]
        for stream in ending:
            stream.end(reason)
        for stream in ending:
            await stream.closed.wait()

    async def cut_ended_for_ever(self) -> None:
        """Cut each stream when the certificate ends that it began with."""
        while True:
            self._changed.clear()
            now = self._clock()
            ends = [stream.peer.expires for stream in self._streams if not stream.cut.done()]
            pause = max(min(ends, default=now + _LONGEST_SLEEP) - now, 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, _LONGEST_SLEEP)):
                    await self._changed.wait()
            for stream in self._streams:
                if stream.peer.expires <= self._clock():
                    stream.end("the certificate that this connection began with has ended")
