"""What the ways add to a request's latency at fixed rates, open loop: a request is due at its time,
whether those before it have been answered or not."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final

from tests.bench import generator, load
from tests.bench.chart import Curve, chart
from tests.bench.figures import Json, Series
from tests.bench.generator import Latency
from tests.bench.rounds import Progress, in_turn, or_why_not
from tests.bench.ways import HOST, SIDECARS, Way

KINDS: Final = ("http", "tcp")
PARTS: Final = (0.1, 0.25, 0.5, 0.75)
"""Rates, as parts of what bare sidecars carry."""
_CONNECTIONS: Final = 64
_QUANTILES: Final = ("p50", "p99")


def measure(ways: Mapping[str, Way], rounds: int, seconds: float, progress: Progress) -> list[Json]:
    """Return for each kind the quantiles of each way by rate, or why there are none."""
    return [_kind(kind, ways, rounds, seconds, progress) for kind in KINDS]


def _kind(
    kind: str,
    ways: Mapping[str, Way],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> Json:
    def measured() -> Json:
        most = _most(ways.get(SIDECARS[0]) or ways["direct"], kind)
        rates = [_at(kind, part * most, ways, rounds, seconds, progress) for part in PARTS]
        return {"kind": kind, "connections": _CONNECTIONS, "rates": rates}

    return or_why_not(measured, kind=kind, rates=[])


def _most(way: Way, kind: str) -> float:
    url = f"http://{way.address}:{way.ports[kind]}/"
    return load.parse_wrk(way.client.run(load.wrk(url, HOST, 2), timeout=20)).rate


def _at(
    kind: str,
    rate: float,
    ways: Mapping[str, Way],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> Json:
    what = f"{kind} at {rate:,.0f} a second"
    found = in_turn(ways, rounds, what, progress, lambda way: _run(way, kind, rate, seconds))
    direct = found["direct"]
    return {
        "rate": rate,
        "variants": {name: _figures(runs, direct) for name, runs in found.items()},
    }


def _run(way: Way, kind: str, rate: float, seconds: float) -> Latency:
    port = way.ports[kind]
    arguments = generator.at_rate(way.address, port, HOST, rate, seconds, _CONNECTIONS)
    return generator.parse(way.client.run([generator.program(), *arguments], timeout=seconds + 30))


def _figures(runs: list[Latency], direct: list[Latency]) -> Json:
    """Return quantiles, and what they are above those of the direct way in the same round."""
    figures: Json = {"failed": sum(run.failed for run in runs), "due": sum(run.due for run in runs)}
    for name in _QUANTILES:
        values = tuple(getattr(run, name) for run in runs)
        base = tuple(getattr(run, name) for run in direct)
        added = tuple(value - least for value, least in zip(values, base, strict=True))
        figures[name] = Series(name, "s", values).as_json()
        figures[f"added {name}"] = Series(f"added {name}", "s", added).as_json()
    return figures


def charts(rows: list[Json], where: str) -> dict[str, str]:
    """Return SVGs by file name, one for each kind and quantile."""
    made: dict[str, str] = {}
    for row in rows:
        for quantile in _QUANTILES if row["rates"] else ():
            curves = [
                Curve(name, tuple(_points(row["rates"], name, f"added {quantile}")))
                for name in row["rates"][0]["variants"]
                if name != "direct"
            ]
            title = f"{row['kind']}, {where}: {quantile} added to the direct way"
            name = f"bench-{row['kind']}-{where.replace(' ', '-')}-{quantile}.svg"
            made[name] = chart(title, "requests a second", "ms", curves)
    return made


def _points(rates: list[Json], name: str, figure: str) -> list[tuple[float, float]]:
    return [
        (row["rate"], 1000 * statistics.median(row["variants"][name][figure]["values"]))
        for row in rates
    ]
