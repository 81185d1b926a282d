"""Requests a second, latency and CPU time a request: directly, through meshd, and through pairs of
sidecars.

Rounds alternate between the ways, so that what disturbs the machine disturbs all of them. CPU time
is that of the proxies of both sides together.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from meshd.base.errors import SystemRefusedError
from tests.bench import load
from tests.bench.figures import Json, Ratio, Series
from tests.bench.load import Load
from tests.bench.rounds import Progress, in_turn, or_why_not
from tests.bench.ways import COMPARED, HOST, MESHD, SIDECARS, Way


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    kind: str
    keep_alive: bool = True

    @property
    def unit(self) -> str:
        return "requests/s" if self.keep_alive else "connections/s"


SCENARIOS: Final = (
    Scenario("http", "http"),
    Scenario("tcp", "tcp"),
    Scenario("http2", "http2"),
    Scenario("grpc", "grpc"),
    Scenario("http, a connection each", "http", keep_alive=False),
    Scenario("tcp, a connection each", "tcp", keep_alive=False),
)


def measure(ways: Mapping[str, Way], rounds: int, seconds: float, progress: Progress) -> list[Json]:
    """Return figures and ratios of each scenario, or why there are none."""
    return [_scenario(scenario, ways, rounds, seconds, progress) for scenario in SCENARIOS]


def _scenario(
    scenario: Scenario,
    ways: Mapping[str, Way],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> Json:
    return or_why_not(
        lambda: as_json(scenario, _rounds(ways, scenario, rounds, seconds, progress)),
        scenario=scenario.name,
        variants={},
        ratios=[],
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One load, and the CPU time in seconds that the proxies took for it."""

    load: Load
    cpu: float


def _rounds(
    ways: Mapping[str, Way],
    scenario: Scenario,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> dict[str, list[Run]]:
    for way in ways.values():
        _load(way, scenario, 1)  # connections and certificates are there before anything counts

    def run(way: Way) -> Run:
        before = way.cpu()
        done = _load(way, scenario, seconds)
        return Run(done, way.cpu() - before)

    return in_turn(ways, rounds, scenario.name, progress, run)


def _load(way: Way, scenario: Scenario, seconds: float) -> Load:
    """Raises SystemRefusedError when nothing is answered."""
    url = f"http://{way.address}:{way.ports[scenario.kind]}/"
    try:
        if scenario.kind in {"http2", "grpc"}:
            return _h2load(way, url, seconds, grpc=scenario.kind == "grpc")
        command = load.wrk(url, HOST, seconds, keep_alive=scenario.keep_alive)
        return load.parse_wrk(way.client.run(command, timeout=seconds + 20))
    except (ValueError, subprocess.SubprocessError) as error:
        raise SystemRefusedError(f"{scenario.name} to {url}: {error}") from None


def _h2load(way: Way, url: str, seconds: float, *, grpc: bool) -> Load:
    log, body = (way.client.path.with_suffix(end) for end in (".h2load", ".body"))
    try:
        command = load.h2load(url, HOST, seconds, str(log))
        if grpc:
            body.write_bytes(load.GRPC_MESSAGE)
            command = load.grpc(command, str(body))
        text = way.client.run(command, timeout=seconds + 20)
        return load.parse_h2load(text, log.read_text(encoding="ascii"))
    finally:
        log.unlink(missing_ok=True)
        body.unlink(missing_ok=True)


def as_json(scenario: Scenario, found: Mapping[str, list[Run]]) -> Json:
    series = {name: tuple(_series(scenario, runs)) for name, runs in found.items()}
    return {
        "scenario": scenario.name,
        "connections": load.CONNECTIONS,
        "variants": {
            name: {
                "figures": [one.as_json() for one in series[name]],
                "failed": sum(run.load.failed for run in runs),
            }
            for name, runs in found.items()
        },
        "ratios": [
            Ratio(f"{over}/{under} {left.name}", left, right).as_json()
            for over, under in _compared(list(found))
            for left, right in zip(series[over], series[under], strict=True)
            if all(right.values)
        ],
    }


def _series(scenario: Scenario, runs: list[Run]) -> Iterator[Series]:
    yield Series("rate", scenario.unit, tuple(run.load.rate for run in runs))
    yield Series("p50", "s", tuple(run.load.p50 for run in runs))
    yield Series("p99", "s", tuple(run.load.p99 for run in runs))
    yield Series("cpu", "s a request", tuple(run.cpu / max(1, run.load.answered) for run in runs))


def _compared(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs: what is meshd over each kind of sidecars, settings of meshd over what it is
    without them, then all over the direct way."""
    meshes = [name for name in names if name.startswith(MESHD)]
    yield from ((over, under) for over, under in COMPARED if over in names and under in names)
    yield from ((name, other) for name in meshes for other in SIDECARS if other in names)
    if "direct" in names:
        yield from ((name, "direct") for name in names if name != "direct")
