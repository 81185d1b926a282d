"""A workload's client: asks a server many times at once and prints the answers as JSON.

ask.py http|grpc|tcp|lines|many|load HOST:PORT [COUNT [CONCURRENCY]]
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PATIENCE = 60.0


def split(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def each(ask: Callable[[], list[Any]], concurrency: int) -> list[Any]:
    with ThreadPoolExecutor(concurrency) as threads:
        return [
            answer
            for asked in [threads.submit(ask) for _ in range(concurrency)]
            for answer in asked.result()
        ]


def ask_http(target: str, count: int) -> list[Any]:
    """On one connection."""
    connection = http.client.HTTPConnection(*split(target), timeout=PATIENCE)
    answers: list[Any] = []
    for _ in range(count):
        connection.request("GET", "/who", headers={"host": target})
        response = connection.getresponse()
        body = response.read()
        answers.append(json.loads(body) if response.status == 200 else {"error": response.status})
    connection.close()
    return answers


def ask_grpc(target: str, count: int) -> list[Any]:
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options) as channel:
        call = channel.unary_unary("/test.Test/Who")
        return [json.loads(call(b"", timeout=PATIENCE)) for _ in range(count)]


def ask_tcp(target: str, count: int) -> list[Any]:
    """A connection each: greeting, echo, our end, farewell."""
    answers: list[Any] = []
    for number in range(count):
        with socket.create_connection(split(target), timeout=PATIENCE) as connection:
            file = connection.makefile("rwb")
            greeting = json.loads(file.readline())
            text = b"%d\n" % number
            file.write(text)
            file.flush()
            echoed = file.readline() == text
            connection.shutdown(socket.SHUT_WR)
            answers.append(greeting | {"echoed": echoed, "farewell": file.read().decode()})
    return answers


def ask_lines(target: str, count: int) -> list[Any]:
    """A connection each: one line there, one back."""
    answers: list[Any] = []
    for number in range(count):
        with socket.create_connection(split(target), timeout=PATIENCE) as connection:
            connection.sendall(b"%d\n" % number)
            answers.append(json.loads(connection.makefile().readline()))
    return answers


async def hold_many(target: str, count: int) -> list[Any]:
    """So many connections open at once, all of them greeted."""
    host, port = split(target)
    gate = asyncio.Semaphore(100)

    async def one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            reader, writer = await asyncio.open_connection(host, port)
            await reader.readline()
            return reader, writer

    async with asyncio.timeout(PATIENCE * 2):
        held = await asyncio.gather(*(one() for _ in range(count)))
        for index, (_, writer) in enumerate(held):
            writer.write(b"%d\n" % index)
        lines = [await reader.readline() for reader, _ in held]
        for _, writer in held:
            writer.close()
    return [line == b"%d\n" % index for index, line in enumerate(lines)]


def load(target: str, concurrency: int) -> dict[str, Any]:
    """Requests, half of them on new connections, until standard input ends."""
    stop = threading.Event()
    counts = {"ok": 0}
    failures: list[tuple[float, str]] = []

    def client(reuse: bool) -> None:
        connection = None
        while not stop.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(*split(target), timeout=PATIENCE)
                connection.request("GET", "/who", headers={"host": target})
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    counts["ok"] += 1
                else:
                    failures.append((time.time(), f"status {response.status}"))
                if not reuse:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                failures.append((time.time(), f"{type(error).__name__}: {error}"))
                if connection:
                    connection.close()
                connection = None
            stop.wait(0.005)

    threads = [threading.Thread(target=client, args=(n % 2 == 0,)) for n in range(concurrency)]
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    return {"ok": counts["ok"], "failures": failures}


def main(how: str, target: str, count: str = "1", concurrency: str = "1") -> None:
    many, at_once = int(count), int(concurrency)
    if how == "many":
        print(json.dumps(asyncio.run(hold_many(target, many))))
    elif how == "load":
        print(json.dumps(load(target, many)))
    else:
        ask = {"http": ask_http, "grpc": ask_grpc, "tcp": ask_tcp, "lines": ask_lines}[how]
        print(json.dumps(each(lambda: ask(target, many), at_once)))


main(*sys.argv[1:])
