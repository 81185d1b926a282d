"""The composition root: each module wires one role; ``main`` is the process around it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable
from typing import Final

from meshd.base import journal
from meshd.base.budget import Limits
from meshd.base.errors import MeshdError
from meshd.proxy.launch import confine
from meshd.settings import Paths, load

ROLES: Final = ("capture", "identity", "mesh", "telemetry", "server", "kubernetes")
_PRIVILEGED: Final = frozenset({"capture"})
NOT_FOR_ROLES: Final = ("setns", "setuid", "setgid", "setreuid", "setregid", "setresuid")
"""System calls that a proxy needs, or its launcher, and the roles without privileges do not."""
_log = logging.getLogger(__name__)


def main(role: str) -> int:
    """Run a role until SIGTERM or SIGINT; returns the process's exit status (sysexits.h)."""
    if role not in ROLES:
        print(f"meshd: there is no role {role!r} (known: {', '.join(ROLES)})", file=sys.stderr)
        return os.EX_USAGE
    try:
        paths = Paths.from_environment()
        settings = load(paths.settings)
        limits = Limits(settings.log.lines_per_second, settings.log.bytes_per_second)
        journal.setup(role, settings.log_level, limits=limits)
        module = importlib.import_module(f"meshd.roles.{role}")
        if role not in _PRIVILEGED:
            confine(*NOT_FOR_ROLES)
        asyncio.run(_until_told(module.run(settings, paths)))
    except Exception as error:
        if reason := expected(error):
            print(f"meshd {role}: {reason}", file=sys.stderr)
            return 1
        _log.exception("unexpected: %s", error)
        return os.EX_SOFTWARE
    return 0


async def _until_told(running: Awaitable[None]) -> None:
    """Run until a signal cancels the task, as a role must expect at any moment."""
    task = asyncio.ensure_future(running)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def expected(error: BaseException) -> str:
    """Return the message of an error that is no fault of the program; else nothing."""
    if isinstance(error, BaseExceptionGroup):
        reasons = [expected(one) for one in error.exceptions]
        return "; ".join(dict.fromkeys(reasons)) if all(reasons) else ""
    return str(error) if isinstance(error, MeshdError) else ""
