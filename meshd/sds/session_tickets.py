"""Keys by which members of the pool resume each other's TLS sessions, where gateways end TLS.

Without them each member draws keys of its own, so that a client whose next connection comes to
another member begins anew, and all do when a proxy is replaced. They are in memory only: whoever
has a key reads the sessions of its time.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import Final

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.model.session_tickets import SESSION_TICKETS
from meshd.sds.subscriber import Secret

_LENGTH: Final = 80
"""Bytes of a key, as Envoy wants it."""
_MOST: Final = 3
"""Keys in use: the first writes tickets, and all read them."""
_PERIOD: Final = 12 * 3600.0
"""Seconds for which a key writes tickets."""


class SessionTickets:
    """The keys; ``publish`` takes the secret that has them, whenever they change."""

    def __init__(
        self,
        publish: Callable[[str, Secret], None],
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._publish = publish
        self._draw = draw
        self._keys: tuple[bytes, ...] = ()

    def renew(self) -> None:
        """Write tickets with a new key from now on."""
        self._keys = (self._draw(_LENGTH), *self._keys)[:_MOST]
        message = secret_pb2.Secret(name=SESSION_TICKETS)
        for key in self._keys:
            message.session_ticket_keys.keys.add().inline_bytes = key
        version = hashlib.blake2b(b"".join(self._keys), digest_size=8).hexdigest()
        self._publish(SESSION_TICKETS, Secret(version, message.SerializeToString()))

    async def run(self) -> None:
        """Renew the keys time and again, until cancelled. The first are there before."""
        while True:
            await asyncio.sleep(_PERIOD)
            self.renew()
