"""Ends a proxy without losing what it works on: no new work, and time for the rest."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from meshd.base import journal
from meshd.proxy.admin import Admin
from meshd.supervisor import datagrams
from meshd.supervisor.service import run_outside

_log = logging.getLogger(__name__)
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at how many connections are left."""
_LONGEST_ANSWER: Final = 5.0
"""Seconds; resolvers give up sooner, and so does the proxy."""


async def close_connections(admin_socket: Path) -> None:
    """Close connections until no client is connected any more. Raises MeshdError."""
    admin = Admin(admin_socket, timeout=1.0)
    await admin.fail_health_check()
    await admin.drain_listeners()
    # Twice: workers stop listening a moment after the answer, and may have taken in one more.
    free = 0
    while free < 2:
        await asyncio.sleep(_LOOK_AGAIN)
        free = 0 if (await admin.vitals()).connections else free + 1


async def turn_queries_away(name: str, pid: int, *, outside: bool) -> None:
    """Wait until each query that the proxy has taken is answered or its client has given up.

    ``outside``: turn queries away in a unit of its own, since the sandbox of ours does not allow
    it.
    """
    if problem := await _why_not_turned_away(pid, outside=outside):
        text = "%s: pending queries may be lost: %s"
        journal.event(_log, logging.WARNING, "drain", text, name, problem)
        return
    await asyncio.sleep(_LONGEST_ANSWER)


async def _why_not_turned_away(pid: int, *, outside: bool) -> str:
    if outside:
        return await run_outside(datagrams.command(pid), datagrams.CAPABILITIES)
    try:
        datagrams.turn_away(pid)
    except OSError as error:
        return error.strerror or str(error)
    return ""
