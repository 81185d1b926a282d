"""Asks the API server: one request and its answer, or a watch whose answer does not end.

HTTP/1.1 over TLS, by h11, and nothing that a request does not need: a node with thousands of pods
in its cluster lists them in tens of mebibytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import h11
import msgspec

from meshd.base.errors import UNDECODABLE, UnreachableError
from meshd.kubernetes.kubeconfig import Access

TIMEOUT: Final = 15.0
"""Seconds for a connection, and for each part of an answer."""
MOST: Final = 256 * 1024 * 1024
"""Bytes of one answer, or of one line of a watch."""
_PART: Final = 256 * 1024
NOT_FOUND: Final = 404
GONE: Final = 410


class ApiError(UnreachableError):
    """The API server's refusal. ``status`` is HTTP's; 0: there was no whole answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Status(msgspec.Struct, frozen=True):
    message: str = ""
    code: int = 0


class Client:
    def __init__(self, access: Access) -> None:
        self._access = access

    async def get(self, path: str) -> bytes:
        """Raises ApiError and InvalidInputError."""
        body = bytearray()
        async with contextlib.aclosing(self._answer(path, TIMEOUT)) as parts:
            async for part in parts:
                body += part
                _bound(len(body))
        return bytes(body)

    async def lines(self, path: str, silence: float) -> AsyncIterator[bytes]:
        """Yield the lines of an answer that goes on, and empty ones when it begins or a part has
        come. Raises ApiError, also when nothing comes for
        ``silence`` seconds."""
        rest = bytearray()
        async with contextlib.aclosing(self._answer(path, silence)) as parts:
            async for part in parts:
                rest += part
                _bound(len(rest))
                *whole, last = rest.split(b"\n")
                for line in whole or (b"",):
                    yield bytes(line)
                rest = bytearray(last)

    async def _answer(self, path: str, silence: float) -> AsyncGenerator[bytes]:
        """Yield the parts of a body. Raises ApiError and InvalidInputError."""
        authorization = self._access.authorization()
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_connection(
                    self._access.host,
                    self._access.port,
                    ssl=self._access.tls,
                    server_hostname=self._access.server_name,
                    limit=_PART,
                )
        except TimeoutError:
            raise ApiError(0, f"no connection within {TIMEOUT:g} s to {self._where}") from None
        except OSError as error:
            raise ApiError(0, f"{self._where}: {error.strerror or error}") from None
        try:
            protocol = h11.Connection(h11.CLIENT)
            writer.write(self._request(protocol, path, authorization))
            async for part in self._parts(protocol, reader, silence):
                yield part
        finally:
            writer.transport.abort()

    async def _parts(
        self, protocol: h11.Connection, reader: asyncio.StreamReader, silence: float
    ) -> AsyncIterator[bytes]:
        status, refused = 0, bytearray()
        while True:
            try:
                event = protocol.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(silence):
                        protocol.receive_data(await reader.read(_PART))
                    continue
            except TimeoutError:
                reason = f"{self._where}: nothing came for {silence:g} s"
                raise ApiError(status, reason) from None
            except (OSError, h11.ProtocolError) as error:
                raise ApiError(0, f"{self._where}: {error}") from None
            if isinstance(event, h11.Response):
                status = event.status_code
                if status == 200:
                    yield b""
            elif isinstance(event, h11.Data) and status == 200:
                yield bytes(event.data)
            elif isinstance(event, h11.Data):
                refused += event.data[: 64 * 1024 - len(refused)]
            elif isinstance(event, h11.EndOfMessage):
                if status != 200:
                    raise ApiError(status, f"{self._where}: {_reason(status, bytes(refused))}")
                return

    def _request(self, protocol: h11.Connection, path: str, authorization: str) -> bytes:
        headers = [
            ("host", f"{self._access.server_name}:{self._access.port}"),
            ("accept", "application/json"),
            ("user-agent", "meshd"),
            ("connection", "close"),
        ]
        if authorization:
            headers.append(("authorization", authorization))
        head = protocol.send(h11.Request(method="GET", target=path, headers=headers))
        return (head or b"") + (protocol.send(h11.EndOfMessage()) or b"")

    @property
    def _where(self) -> str:
        return f"the API server at {self._access.host}:{self._access.port}"


def _bound(size: int) -> None:
    if size > MOST:
        raise ApiError(0, f"the API server answers with more than {MOST} bytes")


def _reason(status: int, body: bytes) -> str:
    try:
        told = msgspec.json.decode(body, type=_Status).message
    except UNDECODABLE:
        told = ""
    return told or f"it answers {status}"
