"""Which machine a node's name belongs to at the moment, when several have its certificate.

A cloned VM has the key of the one that it was made from. Whichever is connected keeps the name: the
other one is refused, and both sides say so. A machine that has just restarted may find its own old
connection, which ends within seconds, so it is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

from meshd.errors import InvalidInputError

METADATA: Final = "meshd-instance"
"""The key of gRPC's metadata by which a node says which running machine it is."""
_PATIENCE: Final = 12.0
"""Seconds: keepalive ends the connection of a machine that is gone in less."""
_SHOWN: Final = 60.0
"""Seconds for which a refused machine is shown after its last attempt."""

_log = logging.getLogger(__name__)


class _Holder:
    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.streams = 0
        self.gone = asyncio.Event()


class Holders:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._rivals: dict[str, tuple[str, float]] = {}

    @contextlib.asynccontextmanager
    async def held(self, node: str, instance: str) -> AsyncGenerator[None]:
        """Within the block the name is this machine's. Raises InvalidInputError when it is
        another's."""
        holder = await self._hold(node, instance)
        holder.streams += 1
        try:
            yield
        finally:
            holder.streams -= 1
            if not holder.streams:
                del self._holders[node]
                holder.gone.set()

    def check(self, node: str, instance: str) -> None:
        """Raises InvalidInputError when another machine holds the name."""
        holder = self._holders.get(node)
        if holder and holder.instance != instance:
            raise InvalidInputError(_refusal(node))

    def problem(self, node: str) -> str:
        """Empty when no other machine has asked for the name of late."""
        rival = self._rivals.get(node)
        if rival is None or self._clock() > rival[1] + _SHOWN:
            return ""
        return (
            "another machine with its name and certificate, perhaps a clone, was refused: on that "
            f"machine set another name (node: NAME in meshd.yaml) and run meshctl join; if this "
            f"key may have been copied without your knowledge: meshctl node remove {node}"
        )

    async def _hold(self, node: str, instance: str) -> _Holder:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    holder = self._holders.setdefault(node, _Holder(instance))
                    if holder.instance == instance:
                        return holder
                    await holder.gone.wait()
        self._note(node, instance)
        raise InvalidInputError(_refusal(node))

    def _note(self, node: str, instance: str) -> None:
        before = self._rivals.get(node)
        self._rivals[node] = (instance, self._clock())
        if before is None or before[0] != instance:
            _log.warning(
                *("node %s: %s", node, self.problem(node)),
                extra={"MESHD_EVENT": "node-conflict"},
            )


def _refusal(node: str) -> str:
    return (
        f"another machine is connected as node {node}, by the same certificate: if this one is a "
        "clone of it, set another name here (node: NAME in meshd.yaml) and run meshctl join with a "
        "new token"
    )
