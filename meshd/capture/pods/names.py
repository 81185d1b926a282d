"""Checks whether a workload's DNS queries are answered.

Where the policy is to fail open, queries alone then pass outside the mesh, until they are answered
again. They have proxies of their own and a resolver behind them, any of which may be dead while all
else lives. So a query is sent to the very port to which the rules redirect.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from pathlib import Path
from typing import Final

from meshd.capture.rules import inside
from meshd.capture.rules.options import CaptureOptions
from meshd.model.interception import DNS_SERVICE_PORT

LOOK: Final = 1.0
"""Seconds between looks whether they are answered again."""
_FAILURES_TO_OPEN: Final = 4
"""In a row."""
_LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 2
_TRY: Final = 0.5
"""Seconds. Nothing between here and the resolver is farther than the next process."""
_ID: Final = b"md"
_QUESTION: Final = _ID + b"\1\0" + b"\0\1\0\0\0\0\0\0" + b"\5probe\5meshd\3svc\0" + b"\0\1\0\1"
"""RFC 1035, 4.1: one question, for an address of a name that the resolver itself denies."""


@dataclasses.dataclass(slots=True)
class Gate:
    """The state of one workload's queries: inside or outside the mesh."""

    is_open: bool = False
    failures: int = 0

    def judge(self, problem: str) -> bool:
        """Take the result of a query; return whether the state changes."""
        before = self.is_open
        self.failures = self.failures + 1 if problem else 0
        self.is_open = bool(problem) and (before or self.failures >= _FAILURES_TO_OPEN)
        return self.is_open != before

    def options(self, wanted: CaptureOptions) -> CaptureOptions:
        return without_queries(wanted) if self.is_open else wanted


def without_queries(options: CaptureOptions) -> CaptureOptions:
    """Return the options without capture of queries."""
    excluded = {*options.exclude_outbound_ports, DNS_SERVICE_PORT}
    return dataclasses.replace(options, dns=False, exclude_outbound_ports=tuple(sorted(excluded)))


async def ask(port: int, namespace: Path | None = None) -> str:
    """Return what is wrong, for users; empty if there was any answer.

    ``namespace`` None: our own. Raises NotReadyError if it is gone.
    """
    with _socket(namespace) as connection:
        try:
            connection.connect((_LOOPBACK, port))
            for _ in range(_TRIES):
                if await _is_answered(connection):
                    return ""
        except ConnectionRefusedError:
            return "no proxy takes its DNS queries"
        except OSError as error:
            return f"its DNS queries cannot be sent: {error.strerror}"
    return f"its DNS queries are not answered within {_TRIES * _TRY:g} s"


async def _is_answered(connection: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    connection.send(_QUESTION)
    try:
        async with asyncio.timeout(_TRY):
            return (await loop.sock_recv(connection, 512)).startswith(_ID)
    except TimeoutError:
        return False


def _socket(namespace: Path | None) -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    if namespace is None:
        return socket.socket(socket.AF_INET, kind)
    with inside.entered(namespace):
        return socket.socket(socket.AF_INET, kind)
