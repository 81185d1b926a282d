"""One TCP port for two TLS servers: who offers a certain ALPN name goes to one, else to the other.

Bytes are passed on as they are: TLS is between the client and the server behind. Python's gRPC
can demand a client certificate or not ask for one, and those who join have none yet.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from meshd.errors import SystemRefusedError
from meshd.xds.hello import NotTlsError, offered_protocols

_HELLO_TIMEOUT: Final = 5.0
"""Seconds for a client to begin."""
_MOST_CONNECTIONS: Final = 8192
_CHUNK: Final = 64 * 1024


class Front:
    """``special``: where to go for whom offers ``protocol``; ``usual``: for all others."""

    def __init__(self, protocol: str, special: Path, usual: Path) -> None:
        self._protocol = protocol
        self._special = special
        self._usual = usual
        self._open = 0

    async def listen(self, address: str, port: int) -> asyncio.Server:
        """Raises SystemRefusedError."""
        try:
            return await asyncio.start_server(self._serve, address or None, port, backlog=1024)
        except OSError as error:
            place = f"{address or '*'}:{port}"
            raise SystemRefusedError(
                f"cannot listen on {place} for other nodes: {error.strerror}; see the settings "
                "control.address and control.port"
            ) from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MOST_CONNECTIONS:
                await self._pass_on(reader, writer)
        except (OSError, TimeoutError, NotTlsError, asyncio.CancelledError):
            pass  # whoever it was is gone, or never meant us
        finally:
            self._open -= 1
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HELLO_TIMEOUT):
            begin, offered = await _hello(reader)
        target = self._special if self._protocol in offered else self._usual
        behind_reader, behind_writer = await asyncio.open_unix_connection(target)
        behind_writer.write(begin)
        pumps = [
            asyncio.ensure_future(_pump(reader, behind_writer)),
            asyncio.ensure_future(_pump(behind_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            behind_writer.close()


async def _hello(reader: asyncio.StreamReader) -> tuple[bytes, tuple[str, ...]]:
    """Raises NotTlsError, ConnectionError."""
    data = b""
    while (offered := offered_protocols(data)) is None or not data:
        if not (more := await reader.read(_CHUNK)):
            raise ConnectionResetError("it hung up")
        data += more
    return data, offered


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one end is closed."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
