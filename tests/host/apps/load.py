"""``load.py HOST RATE``: a steady load until its input ends, and one connection that stays open.

Requests begin at RATE a second, every other one over a connection of its own, the others over
connections that are kept. What it was itself too late for, on a machine that is short of CPU, it
does not make up for: that would be a flood. Prints a line when the first has gone well, and what
came of all at the end, as JSON.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WAIT = 30.0
LOOKUPS = 100
"""At the same time: of a query that is lost the client waits for five seconds."""
LATE = 0.1
"""Seconds that are made up for."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Load:
    def __init__(self, host: str) -> None:
        self.host = host
        self.idle: list[Streams] = []
        self.reasons: collections.Counter[str] = collections.Counter()
        self.done = self.failed = self.echoes = 0
        self.longest = 0.0
        self.lost = ""
        self.again = 0
        self.late = 0.0
        self.failures: list[tuple[float, float, str]] = []

    async def request(self, fresh: bool) -> None:
        begun = time.time()
        try:
            async with asyncio.timeout(WAIT):
                await self.exchange(fresh)
            self.done += 1
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            reason = f"{type(error).__name__} {str(error)[:80]} fresh={fresh}"
            self.failed += 1
            self.reasons[reason] += 1
            self.failures.append((round(begun, 4), round(time.time(), 4), reason))
        self.longest = max(self.longest, time.time() - begun)

    async def exchange(self, fresh: bool) -> None:
        kept = bool(self.idle) and not fresh
        reader, writer = self.idle.pop() if kept else await self.connect(8080)
        try:
            writer.write(f"GET / HTTP/1.1\r\nhost: {self.host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            writer.close()
            # A server may close a connection that is idle: clients ask again over another.
            if kept and not getattr(error, "partial", b""):
                self.again += 1
                return await self.exchange(True)
            raise
        fields = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        length = next(int(value) for name, _, value in fields if name == b"content-length")
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or body != b"ok\n":
            writer.close()
            raise ValueError(f"answered {head[:12]!r} {body[:60]!r}")
        if fresh or b"connection: close" in head.lower():
            writer.close()
        else:
            self.idle.append((reader, writer))
        return None

    async def connect(self, port: int) -> Streams:
        return await asyncio.open_connection(self.host, port)

    async def hold(self) -> None:
        """The connection that stays: whether each message came back."""
        try:
            reader, writer = await self.connect(9000)
            while True:
                writer.write(b"ping\n")
                async with asyncio.timeout(WAIT):
                    await reader.readexactly(5)
                self.echoes += 1
                await asyncio.sleep(0.05)
        except (OSError, EOFError, TimeoutError) as error:
            self.lost = f"{type(error).__name__} {error}"

    def report(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "failed": self.failed,
            "reasons": dict(self.reasons),
            "longest": round(self.longest, 3),
            "echoes": self.echoes,
            "lost": self.lost,
            "again": self.again,
            "late": round(self.late, 3),
            "failures": self.failures[:1000],
        }


async def main() -> None:
    load, pause = Load(sys.argv[1]), 1 / float(sys.argv[2])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUPS))
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with asyncio.timeout(WAIT):
        await load.exchange(True)
    print("begun", flush=True)
    holding = asyncio.create_task(load.hold())
    under_way: set[asyncio.Task[None]] = set()
    due, fresh = time.monotonic(), False
    while not ended.done():
        fresh = not fresh
        task = asyncio.create_task(load.request(fresh))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        late = time.monotonic() - due
        load.late = max(load.late, late)
        due += pause if late < LATE else late
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*under_way)
    holding.cancel()
    print(json.dumps(load.report()), flush=True)


asyncio.run(main())
