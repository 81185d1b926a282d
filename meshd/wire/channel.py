"""Unix sockets that carry ``wire`` messages between meshd's processes.

This module owns framing and the check of the peer's uid; it does not know what messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, TypeVar

from msgspec.msgpack import Decoder

from meshd import wire
from meshd.base.errors import (
    InvalidInputError,
    MeshdError,
    SystemRefusedError,
    UnansweredError,
    UnreachableError,
)
from meshd.base.threads import in_thread

T = TypeVar("T", bound=wire.Message)
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED

_LONGEST_PATH: Final = 107
"""Bytes of a unix socket's path: unix(7)."""
_LARGE: Final = 256 * 1024
"""Bytes of a message above which a thread decodes it: as many take about 10 ms."""


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of the process that connected, as the kernel noted it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return _UCRED.unpack(raw)[1]


def check_length(path: Path) -> None:
    """Raises InvalidInputError when no unix socket can have this path (unix(7))."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidInputError(
            f"{path}: too long for a unix socket ({_LONGEST_PATH} bytes); use a shorter home"
        )


def share_with_group(path: Path) -> None:
    """Open a socket to its owner and its group, which is that of the directory. Raises OSError."""
    path.chmod(0o660)
    group = path.parent.stat().st_gid
    if path.stat().st_gid != group:
        os.chown(path, -1, group)


class Connection(Generic[T]):
    """One end of a connection: messages in, which are of its conversation, and messages out."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        takes: Decoder[T],
        only: tuple[type[wire.Message], ...] = (wire.Message,),
    ) -> None:
        """Wrap a connection; ``takes``: the messages of its conversation; ``only``: those of them
        that the peer may send."""
        self._reader = reader
        self._writer = writer
        self._takes = takes
        self._only = only
        self._lost = False
        """It is not known any more where messages begin."""

    async def receive(self) -> T | None:
        """Return the next message; None if the peer is gone, cleanly or not.

        Raises InvalidInputError for an invalid message, one of another conversation, or one that
        this peer may not send. The next one can be received all the same.
        """
        if self._lost:
            return None
        try:
            size = self._size(await self._reader.readexactly(wire.HEADER_SIZE))
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        message = await self._decoded(body)
        if not isinstance(message, self._only):
            raise InvalidInputError(f"{type(message).__name__} is not for this process to ask")
        return message

    async def _decoded(self, body: bytes) -> T:
        if len(body) <= _LARGE:
            return wire.decode(body, self._takes)
        # All workloads of a large mesh would keep the event loop busy for a second.
        return await in_thread(
            "decoding a message", functools.partial(wire.decode, body, self._takes)
        )

    def _size(self, header: bytes) -> int:
        try:
            return wire.body_size(header)
        except InvalidInputError:
            self._lost = True
            raise

    async def send(self, message: wire.Message) -> None:
        """Raises UnreachableError when the peer is gone."""
        try:
            self._writer.write(wire.encode(message))
            await self._writer.drain()
        except ConnectionError as error:
            raise UnreachableError(f"the other process closed the connection: {error}") from None

    async def send_all(self, messages: Iterable[wire.Message]) -> None:
        """Send one after the other, so that others have their turn meanwhile. Raises
        UnreachableError when the peer is gone."""
        for message in messages:
            await self.send(message)
            await asyncio.sleep(0)

    def is_waiting(self) -> bool:
        """Return whether the peer still waits for an answer: it has not closed the connection.

        The kernel is asked, since the loop may not yet have read that the peer has closed it.
        """
        if self._writer.is_closing():
            return False
        raw: socket.socket = self._writer.get_extra_info("socket")._sock
        try:
            return raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Connection[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()


_ANYTHING: Final[Mapping[int, tuple[type[wire.Message], ...]]] = {}
Session = Callable[[Connection[T]], Awaitable[None]]


async def listen(
    path: Path,
    takes: Decoder[T],
    session: Session[T],
    *,
    uids: Collection[int],
    only: Mapping[int, tuple[type[wire.Message], ...]] = _ANYTHING,
    mode: int = 0o660,
) -> asyncio.Server:
    """Serve ``session`` for each connection whose peer has one of ``uids``.

    ``takes``: the requests of this process, which refuses all others.
    ``only``: what those may ask that may not ask everything, by uid.
    A peer with another uid is hung up on without a word. A socket file left by a process that
    died is replaced. Raises InvalidInputError when the path is too long for a socket (unix(7)),
    SystemRefusedError when the kernel refuses.
    """
    check_length(path)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw: socket.socket = writer.get_extra_info("socket")._sock
        uid = peer_uid(raw)
        connection = Connection(reader, writer, takes, only.get(uid, (wire.Message,)))
        try:
            if uid in uids:
                await session(connection)
        except (UnreachableError, asyncio.CancelledError):
            pass
        except MeshdError as error:
            with contextlib.suppress(UnreachableError):
                await connection.send(wire.Failed(str(error)))
        finally:
            await connection.close()

    try:
        # Made by the supervisor, unless a role runs by itself.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(accepted, path)
        if mode & 0o060:
            share_with_group(path)
        path.chmod(mode)
    except OSError as error:
        raise SystemRefusedError(f"{path}: cannot listen there: {error.strerror}") from None
    return server


IsWaiting = Callable[[], bool]
"""Returns whether the client still waits for the answer."""
Handle = Callable[[T, IsWaiting], Awaitable[wire.Message]]


def answering(handle: Callable[[T], Awaitable[wire.Message]]) -> Session[T]:
    """Return a session that answers each request with one message, for as long as the peer asks."""
    return answering_who_waits(lambda request, _: handle(request))


def answering_who_waits(handle: Handle[T]) -> Session[T]:
    """Return such a session, for requests that must not be granted once the peer has gone."""

    async def session(connection: Connection[T]) -> None:
        while True:
            try:
                if (request := await connection.receive()) is None:
                    return
                answer = await handle(request, connection.is_waiting)
            except MeshdError as error:
                answer = wire.Failed(str(error))
            await connection.send(answer)

    return session


async def connect(path: Path) -> Connection[wire.AnyMessage]:
    """Raises UnreachableError, of an OSError, when nobody listens there or we may not ask it."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        reason = error.strerror or error
        raise UnreachableError(f"cannot reach meshd at {path}: {reason}") from error
    return Connection(reader, writer, wire.ANY)


async def call(path: Path, request: wire.Message, *, timeout: float = 10.0) -> wire.AnyMessage:
    """Ask once. Raises UnreachableError when there is no answer within ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout), await connect(path) as connection:
            await connection.send(request)
            answer = await connection.receive()
    except TimeoutError:
        raise UnansweredError(f"meshd at {path} did not answer within {timeout:g} s") from None
    if answer is None:
        raise UnansweredError(
            f"meshd at {path} closed the connection: it takes requests from root only, and "
            "from its own processes"
        )
    return answer
