"""One answer of a gigabyte: bytes a second, and the proxies' CPU time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from tests.bench import server
from tests.bench.figures import Json, Series
from tests.bench.rounds import Progress, in_turn, or_why_not
from tests.bench.ways import HOST, Way

KINDS: Final = ("http", "tcp")
_PATIENCE: Final = 120.0


def measure(ways: Mapping[str, Way], rounds: int, progress: Progress) -> list[Json]:
    """Return for each kind what each way carries, or why it does not."""
    return [_kind(kind, ways, rounds, progress) for kind in KINDS]


def _kind(kind: str, ways: Mapping[str, Way], rounds: int, progress: Progress) -> Json:
    return or_why_not(lambda: _measured(kind, ways, rounds, progress), kind=kind, variants={})


def _measured(kind: str, ways: Mapping[str, Way], rounds: int, progress: Progress) -> Json:
    for way in ways.values():
        _fetch(way, kind, "large")  # connections and certificates are there
    what = f"a gigabyte, {kind}"
    found = in_turn(ways, rounds, what, progress, lambda way: _fetch(way, kind))
    return {
        "kind": kind,
        "bytes": server.GIGABYTE,
        "variants": {
            name: {
                "rate": _series("rate", "bytes/s", [server.GIGABYTE / one for one, _ in runs]),
                "cpu": _series("cpu", "s", [cpu for _, cpu in runs]),
            }
            for name, runs in found.items()
        },
    }


def _series(name: str, unit: str, values: list[float]) -> Json:
    return Series(name, unit, tuple(values)).as_json()


def _fetch(way: Way, kind: str, what: str = "gigabyte") -> tuple[float, float]:
    """Return how many seconds it took, and how many of CPU time."""
    url = f"http://{way.address}:{way.ports[kind]}/{what}"
    limits = ("--fail", "--max-time", str(_PATIENCE))
    before, start = way.cpu(), time.monotonic()
    way.client.run(
        ["curl", "-s", "-o", "/dev/null", "-H", f"Host: {HOST}", *limits, url],
        timeout=_PATIENCE + 5,
    )
    return time.monotonic() - start, way.cpu() - before
