"""Opens connections of health checks from the ports by which rules know meshd's own probes.

Health checks then count against the share of the probes rather than the workload's own: a workload
at its limit is not reported as ill for that reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from collections.abc import AsyncGenerator
from typing import Final

from meshd.base.tasks import start
from meshd.model.interception import INBOUND_PROBE_PORTS

_TRIES: Final = 16
_BUSY: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
_CHUNK: Final = 65536
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(address: str, port: int) -> Streams:
    """Connect to a workload. Raises OSError.

    Where all the ports that are tried are in use, the connection counts like any other.
    """
    for source in random.sample(INBOUND_PROBE_PORTS, _TRIES):
        with contextlib.suppress(_BusyError):
            return await asyncio.open_connection(sock=await _connected(address, port, source))
    return await asyncio.open_connection(address, port)


class _BusyError(Exception):
    """A port is in use."""


async def _connected(address: str, port: int, source: int) -> socket.socket:
    """Raises OSError, or _BusyError if another connection has that source."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with contextlib.ExitStack() as unless_connected:
        unless_connected.callback(connection.close)
        # Connections to other workloads, and recently closed ones, may have the same port.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            connection.bind(("", source))
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except OSError as error:
            if error.errno in _BUSY:
                raise _BusyError from error
            raise
        unless_connected.pop_all()
    return connection


@contextlib.asynccontextmanager
async def relayed(address: str, port: int) -> AsyncGenerator[str]:
    """Yield a target for gRPC, which chooses no ports itself: an abstract socket whose connections
    are passed on to a workload."""
    name = f"meshd-health-{os.urandom(16).hex()}"
    relays: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = start(_relay((reader, writer), address, port), "a health check by gRPC")
        relays[relay] = writer

    server = await asyncio.start_unix_server(begin, f"\0{name}")
    try:
        yield f"unix-abstract:{name}"
    finally:
        server.close()
        # A workload that drops what it is sent would keep them, and their ports, for minutes.
        for relay, writer in relays.items():
            relay.cancel()
            writer.close()
        await asyncio.gather(*relays, return_exceptions=True)


async def _relay(client: Streams, address: str, port: int) -> None:
    with contextlib.suppress(OSError), contextlib.closing(client[1]):
        workload = await connect(address, port)
        with contextlib.closing(workload[1]):
            await asyncio.gather(_pump(client[0], workload[1]), _pump(workload[0], client[1]))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    sink.close()
