"""Commands that end."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tests.waiting import PATIENCE


@dataclasses.dataclass(frozen=True)
class Process:
    """A command that ended."""

    status: int
    output: str
    errors: str

    def json(self) -> Any:
        assert self.status == 0, f"status {self.status}: {self.output[-500:]} {self.errors[-500:]}"
        return json.loads(self.output.splitlines()[-1])


def run(
    command: Sequence[str], environment: Mapping[str, str], text: str, timeout: float
) -> Process:
    """``text``: what it reads; ``timeout``: seconds."""
    done = subprocess.run(
        command,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    return Process(done.returncode, done.stdout, done.stderr)


def finish(process: subprocess.Popen[str], text: str | None = None) -> Any:
    """What an ``ask.py`` printed."""
    try:
        output, errors = process.communicate(text, timeout=2 * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, errors[-2000:]
    return json.loads(output.splitlines()[-1])
