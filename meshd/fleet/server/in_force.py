"""What a node uses of its server's responses, beside what it has acknowledged. Pure.

A node acknowledges at once, so that a large mesh comes without pauses, and uses what has come in
few steps. It says so by requests of a type of their own, which servers that do not know it take for
requests for nothing: which response was the newest that it had when it last used what it had.
"""

from __future__ import annotations

from typing import Final

from meshd.xds.exchange import Request

IN_FORCE: Final = "meshd.io/v1/InForce"
"""The type URL of these requests. No resource has this type. The nonce is that of the response,
empty for what the node had before this stream."""
NOTHING_YET: Final = "none"
"""The nonce when the node still has to use what it had before this stream."""


class InForce:
    """What one node has said on its stream. Nodes of versions that say nothing are taken to use
    what they acknowledge."""

    def __init__(self) -> None:
        self._sent = ""
        self._said: str | None = None

    def sent(self, nonce: str) -> None:
        """Note the newest response."""
        self._sent = nonce

    def hears(self, request: Request) -> bool:
        """Take a request; return whether it was one of these."""
        if request.type_url != IN_FORCE:
            return False
        # Of older ones nothing is kept: a node may write anything, of any length.
        self._said = self._sent if request.nonce == self._sent else NOTHING_YET
        return True

    @property
    def is_newest(self) -> bool:
        """Return whether all that was sent is in force."""
        return self._said in {None, self._sent}
