"""Lists and ends connections to applications, for the mesh role, which may not enter namespaces.

Whoever asks has fewer privileges than whoever does it: nothing else can be ended than what proxies
have opened to the application of a workload that is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from meshd import wire
from meshd.base.threads import in_thread
from meshd.capture.pods import sockets
from meshd.capture.pods.namespaces import Pins
from meshd.capture.rules import inside

T = TypeVar("T")


async def answer(pins: Pins, request: wire.ConnectionRequest) -> wire.Message:
    """Raises SystemRefusedError, NotReadyError, InvalidInputError."""
    match request:
        case wire.ListConnections(uid):
            found = await _within(pins, uid, sockets.find, ())
            return wire.OpenConnections(tuple(one.connection for one in found))
        case wire.EndConnections(uid, connections):
            wanted = frozenset(connections)
            return wire.Ended(await _within(pins, uid, lambda: sockets.end(wanted), 0))


async def _within(pins: Pins, uid: str, action: Callable[[], T], nothing: T) -> T:
    """Run an action in a workload's namespace; ``nothing``: its result if there is none."""
    pin = pins.find(uid)
    if pin is None:
        return nothing

    def run() -> T:
        with inside.entered(pin.path):
            return action()

    return await in_thread("looking at connections", run)
