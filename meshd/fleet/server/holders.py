"""Which machine a node's name belongs to at the moment, when several have its certificate.

A cloned VM has the key of the one that it was made from. Whichever is connected keeps the name: the
other one is refused, and both sides say so. A machine that has just restarted may find its own old
connection, which ends within seconds, so it is waited for. A machine that was cloned while it ran
cannot be told from its clone but by this: both want the one stream of a kind that a node has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Final

from meshd.base.errors import InvalidInputError

METADATA: Final = "meshd-instance"
"""The key of gRPC's metadata by which a node says which running machine it is."""
MACHINE: Final = "meshd-machine"
"""That by which it says what stays the same when the machine restarts."""
_UNNAMED: Final = 4
"""Streams of each kind for a node that does not say which machine it is."""
_PATIENCE: Final = 12.0
"""Seconds: keepalive ends the connection of a machine that is gone in less."""
_SHOWN: Final = 60.0
"""Seconds for which a refused machine is shown after its last attempt."""

_log = logging.getLogger(__name__)


class _Holder:
    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.streams: Counter[str] = Counter()
        """Those that are open, by kind."""
        self.changed = asyncio.Event()


class Holders:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._conflicts: dict[str, tuple[str, float]] = {}
        """What was said of a node last, and when."""

    @contextlib.asynccontextmanager
    async def held(self, node: str, instance: str, kind: str) -> AsyncGenerator[None]:
        """Hold the name, and the stream of this kind, for this machine within the block.

        Raises InvalidInputError if they are another machine's.
        """
        holder = await self._hold(node, instance, kind)
        try:
            yield
        finally:
            holder.streams[kind] -= 1
            if not holder.streams.total():
                del self._holders[node]
            holder.changed.set()
            holder.changed = asyncio.Event()

    def check(self, node: str, instance: str) -> None:
        """Raises InvalidInputError when another machine holds the name."""
        holder = self._holders.get(node)
        if holder and holder.instance != instance:
            raise InvalidInputError(_refusal(node))

    def problem(self, node: str) -> str:
        """Return the problem if another machine has asked for the name of late; else empty."""
        said, at = self._conflicts.get(node, ("", 0.0))
        return said if self._clock() <= at + _SHOWN else ""

    def note(self, node: str, conflict: str) -> None:
        """Show it for a while."""
        before, _ = self._conflicts.get(node, ("", 0.0))
        self._conflicts[node] = (conflict, self._clock())
        if before != conflict:
            _log.warning("node %s: %s", node, conflict, extra={"MESHD_EVENT": "node-conflict"})

    async def _hold(self, node: str, instance: str, kind: str) -> _Holder:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    holder = self._holders.setdefault(node, _Holder(instance))
                    most = 1 if instance else _UNNAMED
                    if holder.instance == instance and holder.streams[kind] < most:
                        holder.streams[kind] += 1
                        return holder
                    await holder.changed.wait()
        self.note(node, _conflict(node))
        raise InvalidInputError(_refusal(node))


def _conflict(node: str) -> str:
    return (
        "another machine with its name and certificate, perhaps a clone, was refused: on that "
        "machine set another name (node: NAME in meshd.yaml) and run meshctl join; if this key "
        f"may have been copied without your knowledge: meshctl node remove {node}"
    )


def _refusal(node: str) -> str:
    return (
        f"another machine is connected as node {node}, by the same certificate: if this one is a "
        "clone of it, set another name here (node: NAME in meshd.yaml) and run meshctl join with a "
        "new token"
    )
