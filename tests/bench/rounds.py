"""Measures ways in turn, and says why not where one cannot be measured."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from meshd.base.errors import SystemRefusedError
from tests.bench.figures import Json
from tests.bench.ways import Way

T = TypeVar("T")
Progress = Callable[[str], None]


def in_turn(
    ways: Mapping[str, Way], rounds: int, what: str, progress: Progress, run: Callable[[Way], T]
) -> dict[str, list[T]]:
    """Return what each way gives in each round; whatever disturbs the machine disturbs all ways."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in turned(list(ways), number):
            progress(f"{what}: {name}, round {number + 1} of {rounds}")
            found[name].append(run(ways[name]))
    return found


def turned(names: list[str], number: int) -> Iterator[str]:
    """Yield names; each round begins with another one, so that none always comes after the same."""
    start = number % len(names)
    yield from names[start:] + names[:start]


def or_why_not(measure: Callable[[], Json], **nothing: object) -> Json:
    """Return what is measured; where that fails, ``nothing`` with the error."""
    try:
        return measure()
    except (SystemRefusedError, ValueError, subprocess.SubprocessError) as error:
        return {**nothing, "error": str(error)}
