"""Asks the daemon to enroll or unenroll, and shows how far that is until it has ended.

The daemon goes on whether or not this process does.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import typer

from meshd import wire
from meshd.base.errors import UnreachableError
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.output import warn

_PATIENCE: Final = 130.0
"""Seconds that one step may take beyond the time of the request: systemd has 120 to restart a
unit."""
_STUCK: Final = 10.0
"""Seconds after which a step that fails again and again is left to the daemon."""
_ASK_AGAIN: Final = 5.0
"""Seconds that one question may take."""
_LOOK: Final = 0.1
"""Seconds between attempts while the daemon is being restarted."""
_INTERRUPTED: Final = 130
"""Exit status of what SIGINT ends, as shells have it."""


def carry_out(target: Target, request: wire.Message, seconds: float) -> None:
    """Return when the request is done, with remarks printed. Raises RefusedError with what has
    failed."""
    progress = target.ask(request, wire.Progress)
    try:
        progress = _followed(target, progress, seconds + _PATIENCE)
    except KeyboardInterrupt:
        warn(["interrupted; meshd goes on with it: see meshctl status"])
        raise typer.Exit(_INTERRUPTED) from None
    if not progress.known:
        raise RefusedError("meshd does not know how it has ended: see meshctl status", 1)
    warn(progress.remarks)
    if not progress.finished:
        reason = f": {progress.problem}" if progress.problem else ""
        raise RefusedError(
            f"not finished ({progress.doing}){reason}; meshd goes on with it: see meshctl status", 1
        )
    if progress.problem:
        raise RefusedError(progress.problem, 1)


def _followed(target: Target, progress: wire.Progress, patience: float) -> wire.Progress:
    """Return how far the request is when it has ended, or when one step takes too long."""
    since = time.monotonic()
    _show(progress)
    while not progress.finished:
        limit = min(_STUCK, patience) if progress.problem else patience
        left = since + limit - time.monotonic()
        if left <= 0:
            break
        seconds = min(left, _ASK_AGAIN)
        question = wire.Await(progress.number, progress.state, seconds)
        try:
            now = target.ask(question, wire.Progress, wait=seconds)
        except UnreachableError:
            time.sleep(_LOOK)  # it takes the request up again as soon as it is back
            continue
        if (now.doing, now.problem) != (progress.doing, progress.problem):
            since = time.monotonic()
            _show(now)
        progress = now
    return progress


def _show(progress: wire.Progress) -> None:
    """Show the present step to people."""
    if sys.stderr.isatty() and progress.doing:
        reason = f": {progress.problem}" if progress.problem else ""
        print(f"{progress.doing} …{reason}{os.linesep}", end="", file=sys.stderr, flush=True)
