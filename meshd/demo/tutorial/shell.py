"""Runs the tutorial's commands, as a reader's shell would."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from meshd.base.errors import NotReadyError


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    status: int
    output: str
    """Standard output and error, as they come on a terminal."""
    seconds: float


class Running:
    """A command that runs beside others, until it is waited for or stopped."""

    def __init__(self, line: str, environment: Mapping[str, str], directory: Path) -> None:
        self._line = line
        self._began = time.monotonic()
        # A file, not a pipe: nobody reads while it runs.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the command
        self._process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            process_group=0,  # a Ctrl-C is for the demo, which ends its commands itself
        )

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Return the output up to now."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def wait(self, patience: float) -> Answer:
        """Raises NotReadyError when it does not end within ``patience`` seconds."""
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise NotReadyError(f"not done after {patience:.0f} s: {self._line}") from None
        else:
            return Answer(status, self.output, time.monotonic() - self._began)
        finally:
            self.close()

    def interrupt(self, patience: float = 10.0) -> Answer:
        """Interrupt the command as Ctrl-C would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        return self.wait(patience)

    def close(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if not self._output.closed:
            # ``output`` is asked for before, never after.
            self._output.close()
