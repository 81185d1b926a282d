"""A steady load in a host, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Generator
from typing import Any, Final

from tests.host.machine import Machine

PYTHON: Final = "/usr/bin/python3"


@dataclasses.dataclass(frozen=True)
class Report:
    """What came of a load."""

    done: int
    failed: int
    reasons: dict[str, int]
    longest: float
    echoes: int
    lost: str
    """Why the connection that was to stay did not."""
    failures: list[float]


@contextlib.contextmanager
def under_load(machine: Machine, *command: str) -> Generator[list[Report]]:
    """``command`` runs apps/load.py from within the block to its end; what came of it is then in
    the list."""
    process = machine.begin(*command)
    reports: list[Report] = []
    try:
        assert process.stdout
        assert process.stdout.readline() == "begun\n", process.communicate()[1]
        yield reports
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors[-2000:]
        found: dict[str, Any] = json.loads(output)
        reports.append(Report(**found))
    finally:
        if process.poll() is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=5)


def is_lossless(report: Report) -> None:
    assert report.done > 0
    assert not report.failed, report
    assert not report.lost, report
