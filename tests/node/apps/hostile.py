"""A workload that takes more than its share: ``hostile.py HOW HOST:PORT COUNT``.

unread: so many downloads, of which nothing is read; idle: connections that send nothing;
halves: requests whose headers never end; hello: so many TLS handshakes a second, given up;
dns: so many queries a second to the resolver of /etc/resolv.conf.
It prints ``begun`` once it has done what it can, and stays until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path
from typing import cast

FDS_EACH = 4000
"""Connections of each process, below any limit of open files that a host may have."""
PATIENCE = 30.0


def split(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


async def hold(target: str, count: int, said: bytes) -> list[asyncio.StreamWriter]:
    """Connections on which this was said, and whose answers are not read."""
    gate = asyncio.Semaphore(50)
    held: list[asyncio.StreamWriter] = []
    host, port = split(target)

    async def one() -> None:
        async with gate:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    _, writer = await asyncio.open_connection(host, port, limit=1)
                cast(asyncio.Transport, writer.transport).pause_reading()
                writer.write(said)
                held.append(writer)

    await asyncio.gather(*(one() for _ in range(count)))
    return held


async def stay(target: str, count: int, said: bytes) -> None:
    held = await hold(target, count, said)
    print(f"begun {len(held)}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def spread(target: str, count: int, said: bytes) -> None:
    """Over so many processes that none has too many open files."""
    while count > FDS_EACH:
        count -= FDS_EACH
        if not os.fork():
            count = FDS_EACH
            break
    asyncio.run(stay(target, count, said))


def hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = context.wrap_bio(incoming, outgoing, server_hostname="outbound_.80_._.x")
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def shake(target: str, until: threading.Event, each: float) -> None:
    """Hellos of the mesh; the server signs its answer, nobody reads it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["istio"])
    said, address = hello(context), split(target)
    while not until.is_set():
        begun = time.monotonic()
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=2) as one:
            one.sendall(said)
            one.recv(1)
        until.wait(max(0, each - (time.monotonic() - begun)))


def resolver() -> tuple[str, int]:
    with Path("/etc/resolv.conf").open(encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("nameserver")), 53


def query(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", number & 0xFFFF, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def flood(rate: int, until: threading.Event) -> None:
    """Queries for names that nobody has, each from a port of its own."""
    address, number, begun = resolver(), 0, time.monotonic()
    while not until.is_set():
        for _ in range(max(0, int((time.monotonic() - begun) * rate) - number)):
            number += 1
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with asking, contextlib.suppress(OSError):
                asking.sendto(query(number, f"n{number}.example.com"), address)
        until.wait(0.005)


def keep_at_it(threads: list[threading.Thread], until: threading.Event) -> None:
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    sys.stdin.read()
    until.set()


def main(how: str, target: str, count: str) -> None:
    number, until = int(count), threading.Event()
    if how == "unread":
        spread(
            target, number, b"GET /bytes/50000000 HTTP/1.1\r\nhost: %b\r\n\r\n" % target.encode()
        )
    elif how == "idle":
        spread(target, number, b"")
    elif how == "halves":
        spread(target, number, b"GET / HTTP/1.1\r\nhost: %b\r\nx: " % target.encode())
    elif how == "hello":
        each = 16 / number
        keep_at_it(
            [threading.Thread(target=shake, args=(target, until, each)) for _ in range(16)], until
        )
    else:
        keep_at_it([threading.Thread(target=flood, args=(number, until))], until)


main(*sys.argv[1:])
