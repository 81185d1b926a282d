"""``make demo-once``: the whole tutorial, and nothing is left of it, however it ends."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from meshd.demo.tutorial import machine
from meshd.demo.tutorial.machine import Machine
from tests.waiting import PATIENCE, eventually

_LIMIT = 500.0
"""Seconds: as many as there are on a machine that does other things too."""
DEMO = (sys.executable, "-m", "meshd.demo.tutorial", "--once", f"--limit={_LIMIT}")
STEPS = "abcdefghijk"


@contextmanager
def demo() -> Generator[subprocess.Popen[str]]:
    """It is ended, in its own orderly way, if the test is before it is."""
    with subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def left_of(output: str, before: Machine) -> list[str]:
    """What a demo has left that does not go by itself."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: not _seen_of(output, before), "nothing is left")
    return _seen_of(output, before)


def _seen_of(output: str, before: Machine) -> list[str]:
    found = re.search(r"export MESHD_HOME=(\S+)", output)
    assert found
    home = Path(found[1])
    pids = machine.processes_of(home)
    return machine.left(home, home / "run/testbed", frozenset(), before, pids)


def test_every_step_of_the_tutorial_gives_what_it_must_and_nothing_is_left() -> None:
    before = Machine.look()
    with demo() as process:
        output, _ = process.communicate(timeout=_LIMIT + PATIENCE)
    assert process.returncode == 0, output
    assert "✗" not in output
    assert re.findall(r"^\(([a-z])\)", output, re.MULTILINE) == list(STEPS)
    assert left_of(output, before) == []


def test_a_tutorial_that_is_interrupted_twice_leaves_nothing() -> None:
    before = Machine.look()
    with demo() as process:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "$ meshctl testbed up" in line:
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGTERM)
        process.wait(_LIMIT + PATIENCE)
    assert process.returncode == 130, "".join(lines)
    assert left_of("".join(lines), before) == []
