"""Waits for child processes and ends them, on an event loop and without threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Final

from meshd.pods import kernel

GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""


async def gone(descriptor: int) -> None:
    """Wait until the process of a pidfd has ended."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        loop.remove_reader(descriptor)


async def ended(pid: int) -> int:
    """Wait for a child: its exit status, or the negative number of the signal that ended it."""
    descriptor = os.pidfd_open(pid)
    try:
        await gone(descriptor)
    finally:
        os.close(descriptor)
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended already
    return os.waitstatus_to_exitcode(status)


async def end(pid: int) -> None:
    """End a child that is the first of its PID namespace, and with it all below it."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        if kernel.handles_sigterm(pid):
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await ended(pid)
                    return
        os.kill(pid, signal.SIGKILL)
        await ended(pid)
