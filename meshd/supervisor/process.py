"""Processes: start one in a session of its own, notice its end, recognise it again.

A pid is only half a name: the kernel assigns it again. Together with the time at which the process
started, in the kernel's ticks since boot, it names one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True):
    pid: int
    started: int
    """Ticks since boot: /proc/PID/stat, field 22 (proc(5))."""


def identify(pid: int) -> Identity | None:
    """Return the identity of a process; None if nothing but its exit status is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is a name in parentheses, which may hold anything.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else Identity(pid, int(fields[18]))


def command_line(pid: int) -> tuple[str, ...]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in raw.split(b"\0"))


class Process:
    """A running process; ``ended`` is called once, with its status as of subprocess."""

    def __init__(
        self, identity: Identity, descriptor: int, ended: Callable[[int | None], None]
    ) -> None:
        self.identity = identity
        self._descriptor = descriptor
        self._ended = ended
        self._popen: subprocess.Popen[bytes] | None = None
        asyncio.get_running_loop().add_reader(descriptor, self._exited)

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        stderr: int,
        ended: Callable[[int | None], None],
    ) -> Process:
        """Raises OSError."""
        popen = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            # It outlives us if we are killed: traffic goes on, and the next supervisor finds it.
            start_new_session=True,
        )
        # Nobody has waited for it yet, so that its pid cannot be another's by now.
        started = identify(popen.pid) or Identity(popen.pid, 0)
        process = cls(started, os.pidfd_open(popen.pid), ended)
        process._popen = popen
        return process

    @classmethod
    def adopt(cls, identity: Identity, ended: Callable[[int | None], None]) -> Process | None:
        """Adopt a process that another process started; None if it is gone."""
        try:
            descriptor = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if identify(identity.pid) != identity:
            os.close(descriptor)
            return None
        return cls(identity, descriptor, ended)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process and never to another that got its pid."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        status = None
        if self._popen:
            # Until it is waited for, its pid is its group's and no other's: what it started ends.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            status = self._popen.wait()
        self._ended(status)


def describe(status: int | None) -> str:
    """Describe a ``status`` as of subprocess; None means that it is not known."""
    if status is None:
        return "ended"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
