"""Notes which requests of strangers the identity role works on, so that it does not die of the same
one for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshd import wire
from meshd.base.attempts import Attempts

_Answer = Callable[[wire.ToAuthority], Awaitable[wire.Message]]


def noting(attempts: Attempts, answer: _Answer) -> _Answer:
    """Return ``answer``, which refuses requests of a node whose requests processes have died of."""

    async def noted(request: wire.ToAuthority) -> wire.Message:
        if (name := name_of(request)) is None:
            return await answer(request)
        with attempts.noted(name):
            return await answer(request)

    return noted


def name_of(request: wire.ToAuthority) -> str | None:
    """Return the name of the record that stands for a request; None if it is not of a stranger."""
    match request:
        case wire.Admit(peer):
            return f"what node {peer.node} asks of the authority"
        case wire.Certify(peer=peer) if peer is not None:
            return f"what node {peer.node} asks of the authority"
        case wire.Enlist():
            # Strangers choose the node's name, and may choose another one each time.
            return "what nodes ask for that are about to join"
        case _:
            return None
