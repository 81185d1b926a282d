"""One walk through the tutorial: it runs commands, shows them, and counts failures."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

from meshd.base.errors import NotReadyError
from meshd.demo.tutorial.shell import Answer, Running
from meshd.demo.tutorial.terminal import Terminal

PATIENCE: Final = 40.0
"""Seconds for a command, and for what must become so."""
_LOOK: Final = 0.05
"""Seconds between looks."""


class Tutorial:
    """A walk.

    ``environment`` is that of the commands; steps add variables that later ones use. ``deadline``:
    of the monotonic clock; after it every command fails.
    """

    def __init__(
        self, terminal: Terminal, environment: dict[str, str], directory: Path, deadline: float
    ) -> None:
        self.terminal = terminal
        self.environment = environment
        self.failures: list[str] = []
        self._directory = directory
        self._deadline = deadline
        self._step = ""

    def begin(self, title: str) -> None:
        self._step = title
        self.terminal.title(title)

    def export(self, name: str, value: str) -> None:
        self.terminal.command(f"export {name}={value}")
        self.environment[name] = value

    # ---- commands

    def run(self, line: str, *, patience: float = PATIENCE, shown: bool = True) -> Answer:
        """Run a command and show what came back.

        ``shown``: False when only a figure out of it is worth showing. Raises NotReadyError.
        """
        self.terminal.command(line)
        with self.terminal.waiting(line):
            answer = self.ask(line, patience=patience)
        if shown:
            self.terminal.output(answer.output)
        return answer

    def ask(self, line: str, *, patience: float = PATIENCE) -> Answer:
        """Run a command that is not part of the story."""
        running = Running(line, self.environment, self._directory)
        try:
            return running.wait(self._within(patience))
        finally:
            running.close()

    @contextlib.contextmanager
    def beside(self, line: str) -> Generator[Running]:
        """Run a command while others run; it has ended when the block has."""
        self.terminal.command(f"{line} &")
        running = Running(line, self.environment, self._directory)
        try:
            yield running
        finally:
            running.close()

    def pod(self, namespace: str, app: str) -> dict[str, Any]:
        """Return the testbed's record of an application's first pod. Raises NotReadyError."""
        answer = self.ask(f"meshctl testbed ps -n {namespace} -o json")
        if answer.status != 0:
            raise NotReadyError(f"meshctl testbed ps: {answer.output.strip()}")
        for pod in json.loads(answer.output):
            if pod["labels"].get("app") == app:
                return pod
        raise NotReadyError(f"there is no pod of {app} in the namespace {namespace}")

    # ---- expectations

    def expect(self, what: str, holds: bool, got: object = "") -> bool:
        """Show an expectation and return whether it holds; ``got`` is shown if it does not."""
        told = what if holds or got == "" else f"{what}; it is: {got}"
        self.terminal.verdict(holds, told)
        if not holds:
            self.failures.append(f"{self._step}: {told}")
        return holds

    def done(self, line: str, *, patience: float = PATIENCE) -> Answer:
        """Run a command that must succeed. Raises NotReadyError when it does not."""
        answer = self.run(line, patience=patience)
        if answer.status != 0:
            raise NotReadyError(f"exit status {answer.status} of: {line}")
        return answer

    def until(self, holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> bool:
        """Return whether a condition came true in time."""
        end = time.monotonic() + self._within(patience)
        with self.terminal.waiting(what):
            while not holds():
                if time.monotonic() > end:
                    return False
                time.sleep(_LOOK)
        return True

    def _within(self, patience: float) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise NotReadyError("the time for the whole demo is over")
        return min(patience, left)
