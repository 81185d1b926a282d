"""Waits until the roles answer at their sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LOOK_AGAIN: Final = 0.02
"""Seconds."""


async def wait_for(sockets: Iterable[Path], limit: float) -> tuple[Path, ...]:
    """Return the sockets on which no role answers within ``limit`` seconds."""
    late = tuple(sockets)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            while late:
                late = tuple([path for path in late if not await _answers(path)])
                await asyncio.sleep(_LOOK_AGAIN if late else 0)
    return late


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
