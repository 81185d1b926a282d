"""Many connections that do nothing: what each costs the proxies of both sides."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Final

from meshd.base.errors import SystemRefusedError
from tests.bench import generator
from tests.bench.figures import Json
from tests.bench.ways import HOST, Way

KINDS: Final = ("http", "tcp")
_PATIENCE: Final = 90.0
"""Seconds for the generator to open them."""


def measure(ways: Mapping[str, Way], count: int, progress: Callable[[str], None]) -> list[Json]:
    """Return for each kind and way how many were open, and bytes of memory for each."""
    rows: list[Json] = []
    for kind in KINDS:
        for name, way in ways.items():
            progress(f"{count} connections that do nothing, {kind}: {name}")
            rows.append({"kind": kind, "way": name, "asked": count, **_row(way, kind, count)})
    return rows


def _row(way: Way, kind: str, count: int) -> Json:
    try:
        before = way.memory()
        opened, memory = _held(way, kind, count)
    except (SystemRefusedError, ValueError, OSError, subprocess.SubprocessError) as error:
        return {"open": 0, "error": str(error)}
    return {"open": opened, "memory": memory - before, "each": (memory - before) / max(1, opened)}


def _held(way: Way, kind: str, count: int) -> tuple[int, int]:
    """Return how many are open, and the proxies' memory while they are."""
    arguments = generator.holding(way.address, way.ports[kind], HOST, count)
    command = way.client.inside([generator.program(), *arguments])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        try:
            if program.stdout is None:
                raise SystemRefusedError("the generator has no output")
            opened = json.loads(program.stdout.readline())["open"]
            return opened, way.memory()
        finally:
            if program.stdin is not None:
                program.stdin.close()
            program.wait(_PATIENCE)
