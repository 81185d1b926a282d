"""A client of HTTP/1.1 over a unix socket, which bounds an answer's size and time."""

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
                return await _answer(protocol, reader, take, most)
            finally:
                writer.close()
    except TimeoutError:
        raise UnreachableError(f"no answer within {timeout:g} s") from None
    except (OSError, h11.ProtocolError) as error:
        raise UnreachableError(str(getattr(error, "strerror", None) or error)) from None


def _request(protocol: h11.Connection, method: str, target: str) -> bytes:
    headers = [("host", "meshd"), ("connection", "close"), ("content-length", "0")]
    head = protocol.send(h11.Request(method=method, target=target, headers=headers))
    return (head or b"") + (protocol.send(h11.EndOfMessage()) or b"")


async def _answer(
    protocol: h11.Connection,
    reader: asyncio.StreamReader,
    take: Callable[[int, bytes], object],
    most: int,
) -> int:
    """Raises OSError, h11.ProtocolError and UnreachableError."""
    status, size = 0, 0
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            part = await reader.read(_PART)
            if not part and not status:
                raise UnreachableError("the connection was closed without an answer")
            protocol.receive_data(part)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > most:
                raise UnreachableError(f"the answer has more than {most} bytes")
            take(status, bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return status
