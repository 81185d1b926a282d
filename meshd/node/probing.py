"""Has the supervisor run probes that are programs, since this role has no right to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base.errors import MeshdError
from meshd.model.workload import Workload
from meshd.wire import channel

_SPARE: Final = 5.0
"""Seconds for the answer, beyond those for the program."""


async def run(socket: Path, workload: Workload, command: tuple[str, ...], seconds: float) -> bool:
    """Return whether the program succeeds within ``seconds``, with the rights of the workload."""
    request = wire.RunProbe(command, seconds, workload.uid)
    try:
        answer = await channel.call(socket, request, timeout=seconds + _SPARE)
    except MeshdError:
        return False
    return isinstance(answer, wire.Probed) and answer.passed
