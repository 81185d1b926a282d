"""What a client without a certificate can do to a TLS server, many times at once.

``strangers.py HOST PORT AT_ONCE``: so many at a time, new ones as others end; a line for each
hundred that have come.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable

Address = tuple[str, int]
_RESET = struct.pack("ii", 1, 0)


@functools.cache
def hello(*protocols: str) -> bytes:
    """A ClientHello as OpenSSL sends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x.internal")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def connected(server: Address, source: str) -> socket.socket:
    end = socket.socket()
    try:
        end.setblocking(False)
        end.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(end, server)
    except BaseException:
        end.close()
        raise
    return end


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _send(end: socket.socket, data: bytes, wait: float) -> None:
    await asyncio.get_running_loop().sock_sendall(end, data)
    await asyncio.sleep(wait)


async def hang_up(end: socket.socket, wait: float) -> None:
    await _send(end, hello("h2"), wait)


async def reset_it(end: socket.socket, wait: float) -> None:
    await _send(end, hello("h2"), wait)
    reset(end)


async def half_a_hello(end: socket.socket, wait: float) -> None:
    await _send(end, hello("h2")[:100], wait)


async def garbage(end: socket.socket, wait: float) -> None:
    await _send(end, hello("h2"), wait)
    await _send(end, b"\x17\x03\x03\x40\x00" + bytes(0x4000), 0)


async def no_tls(end: socket.socket, wait: float) -> None:
    await _send(end, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), wait)


async def alert(end: socket.socket, wait: float) -> None:
    await _send(end, hello("h2"), wait)
    await _send(end, b"\x15\x03\x03\x00\x02\x02\x28", 0)


async def empty_records(end: socket.socket, wait: float) -> None:
    await _send(end, b"\x16\x03\x01\x00\x00" * 6000, wait)


async def half_closed(end: socket.socket, wait: float) -> None:
    await _send(end, hello("h2"), 0)
    end.shutdown(socket.SHUT_WR)
    await asyncio.sleep(wait)


def _silent(protocol: str) -> Callable[[socket.socket, float], Awaitable[None]]:
    async def silent(end: socket.socket, wait: float) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        _, writer = await asyncio.open_connection(sock=end, ssl=context, server_hostname="x")
        await asyncio.sleep(wait)
        writer.transport.abort()

    return silent


KINDS = (
    *(hang_up, reset_it, half_a_hello, garbage, no_tls, alert, empty_records, half_closed),
    *(_silent("h2"), _silent("meshd-join")),
)
WAITS = (0.0, 0.1, 0.5, 1.0, 2.0, 3.0)


async def _one(server: Address, number: int) -> None:
    kind, wait = KINDS[number % len(KINDS)], WAITS[number // len(KINDS) % len(WAITS)]
    with contextlib.suppress(OSError):
        end = await connected(server, f"127.0.{number % 7}.{2 + number % 240}")
        try:
            await kind(end, wait)
        finally:
            end.close()


async def flood(server: Address, at_once: int) -> None:
    places = asyncio.Semaphore(at_once)
    async with asyncio.TaskGroup() as tasks:
        for number in itertools.count(1):
            await places.acquire()
            tasks.create_task(_one(server, number)).add_done_callback(lambda _: places.release())
            if not number % 100:
                print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(flood((sys.argv[1], int(sys.argv[2])), int(sys.argv[3])))
