"""Chains that are the same in all listeners: traps, refusals, and hops inside the proxy."""

from __future__ import annotations

from typing import Final

from meshd.compile.names import BLACK_HOLE_CLUSTER
from meshd.compile.plan.chains import Chain, Refusal, Tcp

REFUSED: Final = "refused"
LOOP: Final = "loop"

REFUSING: Final = Chain(name=REFUSED, target=Refusal())
"""It hangs up at once."""
LOOP_TRAP: Final = Chain(
    name=LOOP,
    target=Tcp(statistics=BLACK_HOLE_CLUSTER, upstreams=((BLACK_HOLE_CLUSTER, 1),)),
)
"""The trap for clients of the listener itself, which would be sent to itself, for ever."""


def hop(statistics: str, listener: str, *, after_handshake: bool = False) -> Tcp:
    """Return the target of connections that an internal listener takes over. They are not logged
    twice."""
    return Tcp(statistics=statistics, upstreams=((listener, 1),), after_handshake=after_handshake)
