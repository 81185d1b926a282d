"""One TCP port for two TLS servers: who offers a certain ALPN name goes to one, else to the other.

Bytes are passed on as they are: TLS is between the client and the server behind. Python's gRPC
can demand a client certificate or not ask for one, and those who join have none yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections import Counter
from pathlib import Path
from typing import Any, Final

from meshd.errors import SystemRefusedError
from meshd.xds.hello import NotTlsError, offered_protocols

_HELLO_TIMEOUT: Final = 5.0
"""Seconds for a client to begin."""
_MOST_PIECES: Final = 64
"""In which a hello may come: all of it is looked at again with each."""
_MOST_CONNECTIONS: Final = 8192
_MOST_OF_ONE: Final = 512
"""Connections of one address (of IPv6, of one /64): a node has two, and may come back before the
old ones have ended; those behind one translated address share them."""
_CHUNK: Final = 64 * 1024


class Front:
    """``special``: where to go for whom offers ``protocol``; ``usual``: for all others."""

    def __init__(self, protocol: str, special: Path, usual: Path) -> None:
        self._protocol = protocol
        self._special = special
        self._usual = usual
        self._connections: set[asyncio.Task[None]] = set()
        self._by_source: Counter[str] = Counter()
        self._server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> int:
        """Gives the port. Raises SystemRefusedError."""
        try:
            self._server = await asyncio.start_server(
                self._begin, address or None, port, backlog=1024
            )
            return self._server.sockets[0].getsockname()[1]
        except OSError as error:
            place = f"{address or '*'}:{port}"
            raise SystemRefusedError(
                f"cannot listen on {place} for other nodes: {error.strerror}; see the settings "
                "control.address and control.port"
            ) from None

    async def stop(self) -> None:
        """Hang up on everybody."""
        if self._server:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = source_of(writer.get_extra_info("peername"))
        full = len(self._connections) >= _MOST_CONNECTIONS
        if full or self._by_source[source] >= _MOST_OF_ONE:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        self._by_source[source] += 1
        task.add_done_callback(functools.partial(self._ended, source))

    def _ended(self, source: str, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass_on(reader, writer)
        except (OSError, TimeoutError, NotTlsError):
            pass  # whoever it was is gone, or never meant us
        finally:
            await _close(writer)

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
            behind_writer.close()  # first, as whatever awaits may be the last
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await _close(behind_writer)


def source_of(name: Any) -> str:
    """Whom a connection is counted for, by its peer's name as sockets have it."""
    try:
        address = ipaddress.ip_address(name[0].partition("%")[0])
    except (TypeError, ValueError, IndexError, AttributeError):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _hello(reader: asyncio.StreamReader) -> tuple[bytes, tuple[str, ...]]:
    """Raises NotTlsError, ConnectionError."""
    data = b""
    for _ in range(_MOST_PIECES):
        if not (more := await reader.read(_CHUNK)):
            raise ConnectionResetError("it hung up")
        data += more
        if (offered := offered_protocols(data)) is not None:
            return data, offered
    raise NotTlsError("a ClientHello in countless pieces")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one end is closed."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
