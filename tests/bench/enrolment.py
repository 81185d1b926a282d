"""How long it takes from a new network namespace to proven capture, and where the time goes.

What is seen from outside tells: what the capture role reports to whoever listens, and the record
that the mesh role keeps of how far each workload is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base.errors import NotReadyError, UnreachableError
from meshd.model.workload import Stage, Workload
from meshd.settings import Paths
from meshd.wire import channel
from meshd.workloads import record as workloads
from meshd.workloads.lifecycle import Phase
from tests.bench.figures import Json, Series, percentile
from tests.bench.ground import Ground
from tests.bench.node import Node, workload

STEPS: Final = ("pin", "listeners", "rules", "probe", "answer")
"""In this order: the namespace is held; every proxy has the listeners; the rules are in force; a
probe has come through; who asked knows."""
_LOOK: Final = 0.002
_PATIENCE: Final = 30.0
"""Seconds."""

Moments = dict[str, float]


def measure(
    ground: Ground, node: Node, count: int, others: int, progress: Callable[[str], None]
) -> Json:
    """One after the other. Raises MeshdError."""
    creations: list[float] = []
    found: list[Moments] = []
    for number in range(count):
        progress(f"enrolment among {others}: {number + 1} of {count}")
        start = time.monotonic()
        host = ground.add(f"e{number}")
        creations.append(time.monotonic() - start)
        newcomer = workload(host, host.name)
        found.append(asyncio.run(_enrol(node.paths, newcomer)))
        node.unregister(newcomer.uid)
        ground.remove(host)
    return _as_json(others, creations, found)


def durations(moments: Moments) -> dict[str, float]:
    """Seconds of each step. Pure."""
    ends = [moments["asked"], *(moments[step] for step in STEPS)]
    return {
        step: max(0.0, after - before)
        for step, before, after in zip(STEPS, ends, ends[1:], strict=False)
    }


def _as_json(others: int, creations: list[float], found: list[Moments]) -> Json:
    totals = tuple(moments["answer"] - moments["asked"] for moments in found)
    steps = [durations(moments) for moments in found]
    return {
        "workloads": others,
        "total": Series("from asking to proven", "s", totals).as_json()
        | {"p95": percentile(totals, 0.95)},
        "namespace": Series("making the namespace", "s", tuple(creations)).as_json(),
        "steps": [
            Series(name, "s", tuple(step[name] for step in steps)).as_json() for name in STEPS
        ],
    }


async def _enrol(paths: Paths, newcomer: Workload) -> Moments:
    """Raises NotReadyError, UnreachableError."""
    moments: Moments = {}
    observer = await channel.connect(paths.socket("capture"))
    await observer.receive()
    watching = [
        asyncio.create_task(_observe(observer, newcomer.uid, moments)),
        asyncio.create_task(_follow(paths.run / "workloads.json", newcomer.uid, moments)),
    ]
    try:
        async with asyncio.timeout(_PATIENCE):
            moments["asked"] = time.monotonic()
            request = wire.Register((newcomer,), wait=_PATIENCE)
            answer = await channel.call(paths.socket("mesh"), request, timeout=_PATIENCE)
            moments["answer"] = time.monotonic()
            await asyncio.gather(*watching)
    except TimeoutError:
        raise NotReadyError(f"{newcomer.uid} was not seen to be enrolled: {moments}") from None
    finally:
        for task in watching:
            task.cancel()
        await observer.close()
    if isinstance(answer, wire.Failed):
        raise NotReadyError(answer.reason)
    return moments


async def _observe(
    observer: channel.Connection[wire.AnyMessage], uid: str, moments: Moments
) -> None:
    """What the capture role tells, until the workload is proven."""
    while "probe" not in moments:
        message = await observer.receive()
        now = time.monotonic()
        if not isinstance(message, wire.Observed):
            raise UnreachableError(f"the capture role says {message}")
        for seen in message.observations:
            if seen.uid != uid:
                continue
            moments.setdefault("pin", now)
            if seen.stage is Stage.CAPTURED:
                moments.setdefault("rules", now)
            if seen.proven:
                moments.setdefault("probe", now)


async def _follow(record: Path, uid: str, moments: Moments) -> None:
    """The mesh role's record, until it says that all proxies have the workload's listeners."""
    before = 0
    while "listeners" not in moments:
        with contextlib.suppress(FileNotFoundError):
            if (stamp := record.stat().st_mtime_ns) != before:
                before = stamp
                life = workloads.load(record).record.lives.get(uid)
                if life and life.phase is Phase.CAPTURED:
                    moments["listeners"] = time.monotonic()
        await asyncio.sleep(_LOOK)
