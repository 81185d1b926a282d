"""The load generator of our own (``generator.c``): requests at a fixed rate, and connections that
are held. How it is called, and what it prints (pure)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError

_PROGRAM: Final = Path("build/generator")
"""Where ``make setup-bench`` puts it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """What came of requests at a fixed rate. Latencies are in seconds, from when each was due."""

    due: int
    failed: int
    """Also those that were not answered in time."""
    p50: float
    p99: float
    p999: float


def program() -> str:
    """Return the path. Raises SystemRefusedError."""
    if not _PROGRAM.exists():
        raise SystemRefusedError(f"{_PROGRAM} not found; run: make setup-bench")
    return str(_PROGRAM.absolute())


def at_rate(
    address: str, port: int, host: str, rate: float, seconds: float, connections: int
) -> list[str]:
    """Return the arguments for an open loop over HTTP/1.1."""
    amount = (f"{rate:.3f}", f"{seconds:g}", str(connections))
    return ["rate", address, str(port), host, *amount, "keep"]


def holding(address: str, port: int, host: str, connections: int) -> list[str]:
    """Return the arguments for connections that are kept until standard input ends."""
    return ["hold", address, str(port), host, str(connections)]


def parse(text: str) -> Latency:
    """Raises ValueError when it is not what the generator prints, or nothing was answered."""
    found = json.loads(text)
    if not found["answered"]:
        raise ValueError(f"none of {found['due']} requests was answered")
    quantiles = (found[name] / 1e6 for name in ("p50", "p99", "p999"))
    return Latency(found["due"], found["failed"], *quantiles)
