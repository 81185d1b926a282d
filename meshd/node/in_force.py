"""Waits until a change of the configuration is in force, and reports what it has put out of force.

What an earlier change has broken is not reported for a later one: the later one begins when the
earlier is compiled. What other clients break meanwhile is reported to them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import Key
from meshd.base.errors import MeshdError, NotReadyError
from meshd.node.changing import Changing
from meshd.node.mesh import Mesh

_EARLIER: Final = 0.5
"""The share of the time that the changes before may take."""


class InForce:
    """Compares what is in force before and after one change. ``wait``: seconds in all; 0: do not
    wait."""

    def __init__(self, mesh: Mesh, changing: Changing, wait: float) -> None:
        self._mesh = mesh
        self._changing = changing
        self._wait = wait
        self._left = wait
        """Seconds that are left of ``wait``."""
        self._before: Collection[str] = ()
        self._count = 0
        """The number of changes that were made before."""

    async def look(self) -> None:
        """Note what is not in force before the change, once that is known."""
        if self._wait > 0:
            began = time.monotonic()
            # What keeps earlier changes from being in force is reported to their clients.
            with contextlib.suppress(MeshdError):
                await self._reached(began + self._wait * _EARLIER)
            self._left = self._wait - (time.monotonic() - began)
        self._before, self._count = self._mesh.not_in_force(), self._changing.count

    async def reached(self, answer: wire.Changed) -> wire.Changed:
        """Return the answer to the change, once proxies have it.

        Raises NotReadyError if they do not in time, or the error that keeps it from being in force.
        """
        if self._wait <= 0:
            return answer
        await self._reached(time.monotonic() + self._left)
        own = {Key(one.kind, one.namespace, one.name) for one in answer.changes}
        is_same = all(change.result == "unchanged" for change in answer.changes)
        found = self._mesh.not_in_force()
        # A client that applies again what is stored wants to know what is wrong with it.
        news = found if is_same else (line for line in found if line not in self._before)
        others = self._changing.keys_since(self._count) - own
        return msgspec.structs.replace(answer, refused=told(news, own, others))

    async def _reached(self, until: float) -> None:
        mesh, given = self._mesh, f"{self._wait:g} s: see meshctl status"

        async def wait(is_so: Callable[[], bool], problem: str) -> None:
            if not await mesh.settling.wait(is_so, until - time.monotonic()):
                raise NotReadyError(f"stored, but {problem} after {given}")

        async def taken() -> None:
            mesh.reconciler.settle()  # raises the error that keeps the change from being in force
            compilation = mesh.publishing.compilation
            await wait(lambda: mesh.has_compiled(compilation), "still being compiled")
            mesh.reconciler.settle()
            if not await mesh.xds.wait_settled(until - time.monotonic()):
                raise NotReadyError(f"stored, but not every proxy has it after {given}")

        number = mesh.publishing.asked
        await wait(lambda: mesh.has_read(number), "not read")
        await taken()
        # Names are answered for once proxies know their addresses.
        mesh.reconciler.settle()
        await wait(lambda: mesh.resolving.is_read, "the resolver does not have the names")
        # Proxies are told of a namespace's own resolver once the resolver answers.
        await taken()


def told(lines: Iterable[str], own: Iterable[Key], others: Iterable[Key]) -> tuple[str, ...]:
    """Return the lines to report for a change, of those about what is not in force any more: lines
    about objects that other clients have changed meanwhile are left out. Pure."""
    mine, theirs = [f"{key} " for key in own], [f"{key} " for key in others]
    return tuple(
        line
        for line in lines
        if any(name in line for name in mine) or not any(name in line for name in theirs)
    )
