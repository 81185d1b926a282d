"""``python -m tests.bench [--quick] [--only PART]``: writes build/bench.json, prints tables.

Needs root. Whatever it makes is gone when it ends, also when it fails or is interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from meshd.base.errors import MeshdError
from meshd.demo.tutorial.node import free_port
from tests.bench import attacks, changes, cost, enrolment, holds, report, role_holds, throughput
from tests.bench.figures import Json
from tests.bench.ground import ground
from tests.bench.node import namespace, running
from tests.bench.population import Population, services

_OUTPUT: Final = Path("build/bench.json")
_SETTINGS: Final[dict[str, Any]] = {
    "mesh": {"access_log": "off"},
    "capture": {"connections_per_second": 0},
}
"""As the sidecars have it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
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


_FULL: Final = Scale(
    rounds=5,
    seconds=3,
    few=10,
    some=50,
    many=200,
    services=200,
    enrolments=30,
    idle=20,
    attacks=2,
    attack=6,
)
_QUICK: Final = Scale(
    rounds=1,
    seconds=1,
    few=4,
    some=8,
    many=16,
    services=16,
    enrolments=5,
    idle=3,
    attacks=1,
    attack=4,
)


def _costs(scale: Scale, progress: Callable[[str], None]) -> Json:
    """On a node that has served nobody."""
    memory: list[Json] = []
    idle: list[Json] = []
    enrolled: list[Json] = []
    with ground() as place, running(_SETTINGS) as node:
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


def _throughput(scale: Scale, progress: Callable[[str], None]) -> Json:
    with ground() as place, running(_SETTINGS) as node:
        progress("making the three pairs")
        ways = throughput.prepare(place, node)
        return {"throughput": throughput.measure(ways, scale.rounds, scale.seconds, progress)}


def _attacks(scale: Scale, progress: Callable[[str], None]) -> Json:
    with ground() as place, attacks.upstream(free_port()) as resolver:
        settings = {"mesh": _SETTINGS["mesh"] | {"dns_upstreams": [resolver]}}
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
    "load": _throughput,
    "attacks": _attacks,
    "costs": _costs,
}


def _measure(scale: Scale, only: str | None, progress: Callable[[str], None]) -> Json:
    start, before = time.monotonic(), _machine()
    found: Json = {}
    for name, part in _PARTS.items():
        if only in {None, name}:
            found |= part(scale, progress)
    return {
        "scale": dataclasses.asdict(scale),
        "machine": before | {"load_after": os.getloadavg()},
        "seconds": time.monotonic() - start,
        **found,
    }


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute rather than eight")
    parser.add_argument("--only", choices=_PARTS, help="a part of it")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    console = Console(highlight=False)
    try:
        with console.status("starting") as status:
            result = _measure(_QUICK if asked.quick else _FULL, asked.only, status.update)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    except (MeshdError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    _OUTPUT.parent.mkdir(exist_ok=True)
    _OUTPUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report.show(result, console)
    console.print(f"written to {_OUTPUT}, after {result['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
