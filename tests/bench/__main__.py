"""``python -m tests.bench [--quick] [--only PART …]``: writes build/bench.json and charts, prints
tables.

A part that fails is named, with its reason, and the others are measured all the same. ``--only``
takes one part or several; what the file has of the others stays. Needs root. Whatever it makes is
gone when it ends, also when it fails or is interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from meshd.demo.tutorial.node import free_port
from tests.bench import (
    attacks,
    changes,
    connections,
    cost,
    enrolment,
    holds,
    latency,
    report,
    role_holds,
    scheduling,
    throughput,
    transfer,
)
from tests.bench.figures import Json
from tests.bench.ground import ground
from tests.bench.node import namespace, running
from tests.bench.population import Population, services
from tests.bench.ways import FAILURES, SETTINGS, STAGES, Way, Ways

INTERRUPTED: Final = "interrupted"
MISSING: Final = "missing"
"""What a part could not measure of all that it has, by name, with the reason."""
_OUTPUT: Final = Path("build/bench.json")


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    fewer: int
    """Rounds of what takes long."""
    seconds: float
    """Of one load."""
    few: int
    """Workloads for what must hold with 10."""
    some: int
    many: int
    services: int
    enrolments: int
    idle: float
    """Seconds."""
    attacks: int
    """Rounds."""
    attack: float
    """Seconds of one."""
    idle_connections: int


_FULL: Final = Scale(
    rounds=5,
    fewer=3,
    seconds=3,
    few=10,
    some=50,
    many=200,
    services=200,
    enrolments=30,
    idle=20,
    attacks=2,
    attack=6,
    idle_connections=10_000,
)
_QUICK: Final = Scale(
    rounds=1,
    fewer=1,
    seconds=1,
    few=4,
    some=8,
    many=16,
    services=16,
    enrolments=5,
    idle=3,
    attacks=1,
    attack=4,
    idle_connections=1_000,
)


def _costs(scale: Scale, progress: Callable[[str], None]) -> Json:
    """On a node that has served nobody."""
    memory: list[Json] = []
    idle: list[Json] = []
    enrolled: list[Json] = []
    with ground() as place, running(SETTINGS) as node:
        population = Population(place, node)
        many = tuple(services(scale.services))
        node.apply(namespace(), many[0])

        def grow(count: int) -> None:
            progress(f"{count} workloads")
            population.grow(count)
            memory.append(cost.memory(node, count, 1))

        def rest(count: int) -> None:
            progress(f"idle with {count} workloads")
            idle.append(cost.idle(node, count, scale.idle))

        grow(1)
        enrolled.append(enrolment.measure(place, node, scale.enrolments, 1, progress))
        grow(scale.few)
        rest(scale.few)
        grow(scale.some)
        grow(scale.many)
        rest(scale.many)
        enrolled.append(enrolment.measure(place, node, scale.enrolments, scale.many, progress))
        progress(f"{scale.services} services")
        node.apply(*many[1:])
        memory.append(cost.memory(node, scale.many, scale.services))
        population.shrink(scale.few)
        memory.append(cost.memory(node, scale.few, scale.services))
    limits = report.limits(memory, idle, enrolled)
    return {
        "memory": memory,
        "idle": idle,
        "enrolment": enrolled,
        "limits": [limit.as_json() for limit in limits],
    }


def _load(scale: Scale, progress: Callable[[str], None]) -> Json:
    return _staged(
        "throughput",
        progress,
        lambda ways: throughput.measure(ways, scale.rounds, scale.seconds, progress),
    )


def _latency(scale: Scale, progress: Callable[[str], None]) -> Json:
    return _staged(
        "latency",
        progress,
        lambda ways: latency.measure(ways, scale.fewer, scale.seconds, progress),
    )


def _transfer(scale: Scale, progress: Callable[[str], None]) -> Json:
    return _staged("transfer", progress, lambda ways: transfer.measure(ways, scale.fewer, progress))


def _connections(scale: Scale, progress: Callable[[str], None]) -> Json:
    place = "same node"
    progress(f"making the pairs: {place}")
    with STAGES[place]() as ways:
        rows = connections.measure(ways.made, scale.idle_connections, progress)
        return {"connections": rows, MISSING: _missing(place, ways)}


def _staged(
    name: str, progress: Callable[[str], None], measure: Callable[[Mapping[str, Way]], list[Json]]
) -> Json:
    """Return what is measured on one node, and across two."""
    found: Json = {}
    missing: dict[str, str] = {}
    for place, stage in STAGES.items():
        progress(f"making the pairs: {place}")
        with stage() as ways:
            found[place] = measure(ways.made)
            missing |= _missing(place, ways)
    return {name: found, MISSING: missing}


def _missing(place: str, ways: Ways) -> dict[str, str]:
    return {f"{place}, {name}": reason for name, reason in ways.missing.items()}


def _attacks(scale: Scale, progress: Callable[[str], None]) -> Json:
    with ground() as place, attacks.upstream(free_port()) as resolver:
        settings = {"mesh": SETTINGS["mesh"] | {"dns_upstreams": [resolver]}}
        with running(settings) as node:
            rows = attacks.measure(place, node, scale.attacks, scale.attack, progress)
    return {"attacks": rows}


def _machine() -> Json:
    return {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}


def _changes(scale: Scale, progress: Callable[[str], None]) -> Json:
    return {"changes": changes.measure(progress, small=scale is _QUICK)}


def _holds(scale: Scale, progress: Callable[[str], None]) -> Json:
    return {"holds": holds.measure(progress, small=scale is _QUICK)}


def _role_holds(scale: Scale, progress: Callable[[str], None]) -> Json:
    return {"role_holds": role_holds.measure(progress, small=scale is _QUICK)}


_PARTS: Final = {
    "changes": _changes,
    "holds": _holds,
    "role-holds": _role_holds,
    "load": _load,
    "latency": _latency,
    "transfer": _transfer,
    "connections": _connections,
    "attacks": _attacks,
    "costs": _costs,
}


def measured(parts: Mapping[str, Callable[[], Json]]) -> Json:
    """Return what the parts give; those that fail are in ``failed``, with the reason, and so is
    what they lack. None begins after one that was interrupted."""
    found: Json = {}
    failed: dict[str, str] = {}
    for name, part in parts.items():
        try:
            given = part()
            failed |= {f"{name}, {what}": why for what, why in given.pop(MISSING, {}).items()}
            found |= given
        except FAILURES as error:
            failed[name] = f"{type(error).__name__}: {error}"
        except KeyboardInterrupt:
            failed[name] = INTERRUPTED
            break
    return {**found, "failed": failed}


def _measure(scale: Scale, only: Collection[str], progress: Callable[[str], None]) -> Json:
    start, before = time.monotonic(), _machine()
    chosen = [name for name in _PARTS if not only or name in only]
    with scheduling.one_group() as fair:
        parts = {name: functools.partial(_PARTS[name], scale, progress) for name in chosen}
        found = measured(parts)
    machine = before | {"load_after": os.getloadavg(), "one_scheduling_group": fair}
    return {
        "scale": dataclasses.asdict(scale),
        "machine": machine,
        "seconds": time.monotonic() - start,
        **found,
    }


def _kept(only: Collection[str]) -> Json:
    """Return what was measured before of parts that are not asked for."""
    if not only or not _OUTPUT.exists():
        return {}
    try:
        return json.loads(_OUTPUT.read_text(encoding="utf-8"))
    except ValueError:
        return {}


def _write(result: Json, only: Collection[str]) -> None:
    _OUTPUT.parent.mkdir(exist_ok=True)
    text = json.dumps(_kept(only) | result, indent=1)
    _OUTPUT.write_text(text + "\n", encoding="utf-8")
    for place, rows in result.get("latency", {}).items():
        for name, drawing in latency.charts(rows, place).items():
            (_OUTPUT.parent / name).write_text(drawing, encoding="utf-8")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minutes rather than an hour")
    parser.add_argument("--only", choices=_PARTS, nargs="+", default=(), help="parts of it")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    console = Console(highlight=False)
    try:
        with console.status("starting") as status:
            result = _measure(_QUICK if asked.quick else _FULL, asked.only, status.update)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    _write(result, asked.only)
    report.show(result, console)
    console.print(f"written to {_OUTPUT}, after {result['seconds']:.0f} s")
    for name, reason in result["failed"].items():
        print(f"bench: {name} failed: {reason}", file=sys.stderr)
    if INTERRUPTED in result["failed"].values():
        return 130
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
