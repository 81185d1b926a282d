"""One TCP port for nodes and for those that join, with TLS ended before anything else is done.

gRPC sees only connections whose handshake is done and whose client has shown a certificate of this
mesh: what strangers send, or leave unsent, is between them and OpenSSL. Connections that agree on
the protocol of joining are answered here. The others go on to gRPC as plain HTTP/2 over a unix
socket. The terminator's end of that connection has a name that nobody can guess, by which gRPC's
handlers learn which node it is from (``peer``); what reaches the socket in any other way is from
none.

A connection is a stranger's until one of its requests has been admitted (``admitted``): strangers
have little time and places of their own, which are not those of nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import secrets
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.base.tasks import first_of, start
from meshd.fleet.server.places import Places
from meshd.fleet.server.tls import Tls
from meshd.wire.joining import Peer

_HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for a TLS handshake, from its first byte to its last."""
_REQUEST_TIMEOUT: Final = 10.0
"""Seconds from the handshake until a join is answered, or a node's first request is admitted."""
_MOST_STRANGERS: Final = 1024
_MOST_OF_ONE_SOURCE: Final = 256
"""Connections of one address (of IPv6, of one /64) that are not known to be a node's: those behind
one translated address share them."""
_MOST_OF_NODES: Final = 8192
_MOST_OF_ONE_NODE: Final = 16
"""A node has two, and may come back before the old ones have ended."""
_LINE: Final = 64 * 1024
"""Bytes of a question of those that join."""
_CHUNK: Final = 64 * 1024


@dataclasses.dataclass(eq=False)
class _Connection:
    source: str
    certificate: bytes = b""
    peer: Peer | None = None
    """Known from its first request on."""
    node: str = ""
    """Empty until it is admitted."""
    task: asyncio.Task[None] | None = None
    deadline: asyncio.Timeout | None = None


class TlsTerminator:
    """``context``: TLS as it is at the moment, which asks for certificates and does without them;
    ``joining``: the protocol of those that join, and the answer to a line of theirs; ``identify``:
    the node that a certificate is for, raises InvalidInputError when it is for none; ``nodes``:
    where gRPC listens."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        joining: tuple[str, Callable[[bytes], Awaitable[bytes]]],
        identify: Callable[[bytes], Peer],
        nodes: Path,
    ) -> None:
        self._context = context
        self._protocol, self._answer = joining
        self._identify = identify
        self._nodes = nodes
        self._open: set[_Connection] = set()
        self._named: dict[str, _Connection] = {}
        """Those that have gone on to gRPC, by what gRPC calls them."""
        self._strangers = Places[_Connection](_MOST_STRANGERS, _MOST_OF_ONE_SOURCE)
        self._known = Places[_Connection](_MOST_OF_NODES, _MOST_OF_ONE_NODE)
        self._server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> int:
        """Listen and return the port. Raises SystemRefusedError."""
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
        tasks = [connection.task for connection in self._open if connection.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what gRPC's handlers ask and say

    def peer(self, name: str) -> Peer:
        """Return the node at the other end of what gRPC calls so.

        Raises InvalidInputError when its certificate is no node's, or it did not come this way.
        """
        connection = self._named.get(name)
        if connection is None:
            raise InvalidInputError("this is for nodes, and you have shown no certificate")
        if connection.peer is None:
            connection.peer = self._identify(connection.certificate)
        return connection.peer

    def admitted(self, peer: Peer) -> None:
        """Count the connections of an admitted node as the node's, which may last."""
        for connection in [each for each in self._named.values() if each.peer == peer]:
            if not connection.node:
                self._leave(connection)
                connection.node = peer.node
                _end(self._known.enter(peer.node, connection))
            if connection.deadline:
                connection.deadline.reschedule(None)

    # ---- connections

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(source_of(writer.get_extra_info("peername")))
        tls = Tls(self._context(), reader, writer)
        connection.task = start(self._serve(connection, tls), "a connection of a node")
        self._open.add(connection)
        connection.task.add_done_callback(lambda _: self._ended(connection, writer))
        _end(self._strangers.enter(connection.source, connection))

    def _ended(self, connection: _Connection, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()  # who is cancelled before it began has closed nothing
        self._open.discard(connection)
        self._leave(connection)

    def _leave(self, connection: _Connection) -> None:
        if connection.node:
            self._known.leave(connection.node, connection)
        else:
            self._strangers.leave(connection.source, connection)

    async def _serve(self, connection: _Connection, tls: Tls) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                await tls.handshake()
            async with asyncio.timeout(_REQUEST_TIMEOUT) as connection.deadline:
                await self._go_on(connection, tls)
        except (OSError, TimeoutError, ValueError):
            pass  # whoever it was is gone, too slow, or never meant us
        finally:
            await tls.close()

    async def _go_on(self, connection: _Connection, tls: Tls) -> None:
        if tls.protocol == self._protocol:
            await tls.write(await self._answer(await tls.read_line(_LINE)))
        elif tls.protocol == "h2" and (certificate := tls.certificate):
            connection.certificate = certificate
            await self._pass_on(connection, tls)

    async def _pass_on(self, connection: _Connection, tls: Tls) -> None:
        first = await tls.read()  # so that gRPC sees nobody who says nothing
        if not first:
            return
        async with self._behind(connection) as (reader, writer):
            writer.write(first)
            await first_of(_upwards(tls, writer), _downwards(reader, tls))

    @contextlib.asynccontextmanager
    async def _behind(
        self, connection: _Connection
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a connection to gRPC that gRPC can tell from all others."""
        name = f"meshd-node-{secrets.token_hex(16)}"
        peer = f"unix-abstract:{name}"
        end = socket.socket(socket.AF_UNIX)
        try:
            end.setblocking(False)
            end.bind(f"\0{name}")
            self._named[peer] = connection
            await asyncio.get_running_loop().sock_connect(end, str(self._nodes))
            reader, writer = await asyncio.open_unix_connection(sock=end)
            try:
                yield reader, writer
            finally:
                writer.transport.abort()
        finally:
            del self._named[peer]  # before the name is free for others
            end.close()


def source_of(name: Any) -> str:
    """Return the source that a connection is counted for, from the peer's name of its socket."""
    try:
        address = ipaddress.ip_address(name[0].partition("%")[0])
    except (TypeError, ValueError, IndexError, AttributeError):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _end(connection: _Connection | None) -> None:
    if connection and connection.task:
        connection.task.cancel()


async def _upwards(tls: Tls, writer: asyncio.StreamWriter) -> None:
    """Copy until one end is closed."""
    while data := await tls.read():
        writer.write(data)
        await writer.drain()


async def _downwards(reader: asyncio.StreamReader, tls: Tls) -> None:
    """Copy until one end is closed."""
    while data := await reader.read(_CHUNK):
        await tls.write(data)
