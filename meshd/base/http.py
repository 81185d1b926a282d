"""A client of HTTP/1.1 over a unix socket, which bounds an answer's size and time; and over a
connection of the caller's, who bounds the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import h11

from meshd.base.errors import UnreachableError

MOST: Final = 256 * 1024 * 1024
"""Bytes of an answer's body: some times what a proxy with 10,000 services tells."""
_PART: Final = 65536


async def ask(
    socket: Path,
    method: str,
    target: str,
    take: Callable[[int, bytes], object],
    *,
    timeout: float,
    most: int = MOST,
) -> int:
    """Send a request without a body; return the answer's status.

    ``take`` is given the status and each part of the body. Raises UnreachableError, which says why
    there is no whole answer.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                protocol = h11.Connection(h11.CLIENT)
                writer.write(_request(protocol, method, target))
                return (await _answer(protocol, reader, take, most))[0]
            finally:
                writer.close()
    except TimeoutError:
        raise UnreachableError(f"no answer within {timeout:g} s") from None
    except (OSError, h11.ProtocolError) as error:
        raise UnreachableError(str(getattr(error, "strerror", None) or error)) from None


async def get(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    host: str,
    target: str,
    take: Callable[[bytes], object],
    *,
    most: int,
) -> tuple[int, str]:
    """Ask over a connection that is open; return the answer's status and where it leads.

    ``take`` is given each part of the body. Raises OSError, and UnreachableError, which says why
    there is no whole answer.
    """
    protocol = h11.Connection(h11.CLIENT)
    try:
        writer.write(_request(protocol, "GET", target, host))
        return await _answer(protocol, reader, lambda _, part: take(part), most)
    except h11.ProtocolError as error:
        raise UnreachableError(str(error)) from None


def _request(protocol: h11.Connection, method: str, target: str, host: str = "meshd") -> bytes:
    headers = [("host", host), ("connection", "close"), ("content-length", "0")]
    head = protocol.send(h11.Request(method=method, target=target, headers=headers))
    return (head or b"") + (protocol.send(h11.EndOfMessage()) or b"")


async def _answer(
    protocol: h11.Connection,
    reader: asyncio.StreamReader,
    take: Callable[[int, bytes], object],
    most: int,
) -> tuple[int, str]:
    """Return the answer's status, and its header ``location``.

    Raises OSError, h11.ProtocolError and UnreachableError.
    """
    status, size, location = 0, 0, ""
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            part = await reader.read(_PART)
            if not part and not status:
                raise UnreachableError("the connection was closed without an answer")
            protocol.receive_data(part)
        elif isinstance(event, h11.Response):
            status = event.status_code
            found = (value for name, value in event.headers if name == b"location")
            location = next(found, b"").decode("latin-1")
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > most:
                raise UnreachableError(f"the answer has more than {most} bytes")
            take(status, bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return status, location
