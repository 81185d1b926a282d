"""Changes of systemd's units, asked of the capture role, which is root."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.base.errors import SystemRefusedError, UnreachableError
from meshd.wire import channel
from meshd.workloads.host.systemd import Systemd

_TIMEOUT: Final = 150.0
"""Seconds: more than systemd may take to restart a unit."""


class Units:
    """Units by way of the socket of the capture role."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def is_prepared(self, unit: str) -> bool:
        return Systemd().is_prepared(unit)

    async def change(self, request: wire.UnitRequest) -> tuple[str, ...]:
        """Raises SystemRefusedError, UnreachableError."""
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                await channel.connect(self._socket) as connection,
            ):
                await connection.send(request)
                return await _answer(connection)
        except TimeoutError:
            raise UnreachableError(
                f"the capture role did not answer within {_TIMEOUT:g} s"
            ) from None


async def _answer(connection: channel.Connection[wire.AnyMessage]) -> tuple[str, ...]:
    """Return the remarks of the answer, before which others may come: each peer is told what
    capture sees."""
    while (answer := await connection.receive()) is not None:
        if isinstance(answer, wire.UnitChanged):
            return answer.remarks
        if isinstance(answer, wire.Failed):
            raise SystemRefusedError(answer.reason)
    raise UnreachableError("the capture role closed the connection")
