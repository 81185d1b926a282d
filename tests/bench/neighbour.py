"""A workload that asks for little, and notes how long it waits: ``neighbour.py ADDRESS PORT HOST
SECONDS``.

It sends requests over kept connections, requests with a connection each, and queries for a name, at
fixed rates: each is due at its time, whether those before it have been answered or not, so that
what had to wait for others counts as late. It prints one JSON object: by kind, latencies in seconds
and the number of failures.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

_RESOLVER = "198.18.0.1", 53
"""Wherever a query goes to, the mesh's resolver takes it."""
_PATIENCE = 5.0
"""Seconds for one answer."""
_RATE = 10.0
"""A second, of each thread: what takes less than its reverse makes nothing else late."""
_THREADS = {"kept": 8, "new": 4, "names": 4}


class Requests:
    """Over one connection, or over one each."""

    def __init__(self, address: str, port: int, host: str, *, keep: bool) -> None:
        self._connection = http.client.HTTPConnection(address, port, timeout=_PATIENCE)
        self._headers = {"Host": host, **({} if keep else {"Connection": "close"})}

    def ask(self) -> None:
        """Raises OSError, HTTPException."""
        try:
            self._connection.request("GET", "/", headers=self._headers)
            answer = self._connection.getresponse()
            answer.read()
        except BaseException:
            self._connection.close()
            raise
        if answer.status != 200:
            raise OSError(f"answered {answer.status}")


class Names:
    def __init__(self, name: str) -> None:
        labels = [label.encode() for label in (*name.split("."), "")]
        question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0\1\0\1"
        self._query = struct.pack(">6H", 4711, 0x100, 1, 0, 0, 0) + question

    def ask(self) -> None:
        """Raises OSError."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(_PATIENCE)
            asking.connect(_RESOLVER)
            asking.send(self._query)
            answer = asking.recv(4096)
        _, flags, _, answers, *_ = struct.unpack(">6H", answer[:12])
        if flags & 0xF or not answers:
            raise OSError(f"no address, code {flags & 0xF}")


class Record:
    """What came of one kind."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.failures: list[str] = []

    def keep(self, ask: Callable[[], None], begun: float, seconds: float) -> None:
        """The first is due at ``begun``."""
        for number in range(int(_RATE * seconds)):
            due = begun + number / _RATE
            time.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() > begun + seconds + _PATIENCE:
                self.failures.append("not even asked: those before it took too long")
                continue
            try:
                ask()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(str(error) or type(error).__name__)
            else:
                self.latencies.append(time.monotonic() - due)


def main(address: str, port: str, host: str, seconds: str) -> None:
    def client(kind: str) -> Callable[[], None]:
        if kind == "names":
            return Names(host).ask
        return Requests(address, int(port), host, keep=kind == "kept").ask

    records = {kind: Record() for kind in _THREADS}
    clients = [kind for kind, count in _THREADS.items() for _ in range(count)]
    step = 1 / _RATE / len(clients)
    threads = [
        threading.Thread(
            target=records[kind].keep,
            args=(client(kind), time.monotonic() + number * step, float(seconds)),
        )
        for number, kind in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {
        kind: {"latencies": record.latencies, "failures": record.failures}
        for kind, record in records.items()
    }
    print(json.dumps(found))


main(*sys.argv[1:])
