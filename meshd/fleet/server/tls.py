"""The server's side of TLS over a pair of streams.

asyncio has one of its own, but it takes 256 KiB for each connection before the client has said
anything, and cannot be given up at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

_CHUNK: Final = 64 * 1024
_GOODBYE: Final = 0.5
"""Seconds for the client to take what is still to be sent."""

T = TypeVar("T")


class Tls:
    """A TLS connection; its memory is bounded by ``_CHUNK`` in each direction."""

    def __init__(
        self,
        context: ssl.SSLContext,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def protocol(self) -> str | None:
        """Return the protocol that both ends agreed on by ALPN."""
        return self._tls.selected_alpn_protocol()

    @property
    def certificate(self) -> bytes | None:
        """Return the client's certificate in DER, as the handshake has verified it."""
        return self._tls.getpeercert(binary_form=True)

    async def handshake(self) -> None:
        """Raises OSError, which an SSLError is."""
        try:
            await self._when_possible(self._tls.do_handshake)
        except ssl.SSLError:
            await self._flush()  # the alert that says why
            raise

    async def read(self) -> bytes:
        """Return what the client has sent; nothing once it has ended. Raises OSError."""
        try:
            return await self._when_possible(lambda: self._tls.read(_CHUNK))
        except ssl.SSLEOFError:
            return b""

    async def read_line(self, limit: int) -> bytes:
        """Return a whole line. Raises OSError; ValueError when none ends within ``limit`` bytes."""
        line = b""
        while not line.endswith(b"\n"):
            if len(line) > limit or not (more := await self.read()):
                raise ValueError("no line")
            line += more
        return line

    async def write(self, data: bytes) -> None:
        """Return when the client has taken most of it. Raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        await self._flush()

    async def close(self) -> None:
        """Say so to the client, but do not wait for its answer."""
        with contextlib.suppress(OSError):
            self._tls.unwrap()
        self._writer.write(self._outgoing.read())
        self._writer.close()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        finally:
            self._writer.transport.abort()

    async def _when_possible(self, act: Callable[[], T]) -> T:
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            else:
                await self._flush()
                return result

    async def _feed(self) -> None:
        if data := await self._reader.read(_CHUNK):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()
