"""A connection that is open between a proxy and an application."""

from __future__ import annotations

import msgspec


class OpenConnection(msgspec.Struct, frozen=True):
    """Both ends, as the application sees them: the proxy keeps the client's address."""

    client: str
    """Address."""
    client_port: int
    server: str
    """Address."""
    port: int
    """The application's."""
