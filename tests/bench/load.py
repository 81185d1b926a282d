"""Load generators: how they are called, and what they print (pure)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

CONNECTIONS: Final = 16
_STREAMS: Final = 4
"""Requests under way at a time on each HTTP/2 connection."""
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What came of one run."""

    rate: float
    """Requests a second that were answered well."""
    p50: float
    """Seconds."""
    p99: float
    """Seconds."""
    failed: int
    answered: int
    """Requests, also before and after what the rate is taken of."""


GRPC_MESSAGE: Final = b"\0\0\0\0\x05hello"
"""Not compressed, and its length: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md."""


def wrk(url: str, host: str, seconds: float, *, keep_alive: bool = True) -> list[str]:
    """Closed loop over HTTP/1.1."""
    headers = ["-H", f"Host: {host}", *([] if keep_alive else ["-H", "Connection: close"])]
    amount = [f"-t1 -c{CONNECTIONS} -d{max(1, round(seconds))}s".split()]
    return ["wrk", *amount[0], "--latency", *headers, url]


def h2load(url: str, authority: str, seconds: float, log: str) -> list[str]:
    """Closed loop over HTTP/2 with as many requests at a time as wrk has; ``log``: a new file."""
    clients = CONNECTIONS // _STREAMS
    return [
        *("h2load", f"-c{clients}", f"-m{_STREAMS}", f"-D{max(1, round(seconds))}", "-t1"),
        *("-H", f":authority: {authority}", f"--log-file={log}", url),
    ]


def grpc(h2load: Sequence[str], message: str) -> list[str]:
    """Return the command with calls of a gRPC method in place of requests; ``message``: a file."""
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers", "-d", message)
    return [*h2load[:-1], *headers, f"{h2load[-1]}bench.Hello/Say"]


def parse_wrk(text: str) -> Load:
    """Raises ValueError when it is not what wrk prints."""
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = int(refused[1]) if refused else 0
    seconds = _seconds(_found(r"requests in ([\d.]+)(us|ms|s|m),", text))
    total = int(_found(r"(\d+) requests in", text)[1])
    return Load(
        rate=(total - failed) / seconds,
        p50=_seconds(_found(r"50%\s+([\d.]+)(us|ms|s|m)", text)),
        p99=_seconds(_found(r"99%\s+([\d.]+)(us|ms|s|m)", text)),
        failed=failed + sum(int(count) for count in (errors.groups() if errors else ())),
        answered=total,
    )


def parse_h2load(text: str, log: str) -> Load:
    """``log`` has a line for each request: start, status, microseconds. Raises ValueError."""
    rate = _found(r"finished in [\d.]+\w+, ([\d.]+) req/s", text)
    failed = _found(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
    lines = [line.split("\t") for line in log.splitlines()]
    latencies = sorted(int(line[2]) / 1e6 for line in lines if line[1].startswith("2"))
    refused = len(lines) - len(latencies)
    if not latencies:
        raise ValueError(f"nothing was answered well, of {len(lines)} requests: {text[-700:]!r}")
    return Load(
        rate=float(rate[1]) * len(latencies) / max(1, len(lines)),
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        failed=refused + int(failed[1]),
        answered=len(lines),
    )


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Of values in order: the smallest that so many are not above. Raises ValueError for none."""
    if not ordered:
        raise ValueError("no values, so there is no quantile")
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def _found(pattern: str, text: str) -> re.Match[str]:
    if found := re.search(pattern, text):
        return found
    raise ValueError(f"not what a load generator prints, no {pattern!r} in: {text[-500:]!r}")


def _seconds(found: re.Match[str]) -> float:
    return float(found[1]) * _UNITS[found[2]]
