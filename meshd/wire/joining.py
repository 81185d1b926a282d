"""server → identity: nodes that join, and certificates for them."""

from __future__ import annotations

import msgspec

from meshd.api.base import Seconds, UnixSeconds
from meshd.model.bounds import Bounds
from meshd.wire.message import Message


class Enlist(Message, frozen=True):
    """A node wants to join: the request is for its certificate, and spends the token."""

    token: str
    node: str
    csr: bytes
    """PEM."""


class Peer(msgspec.Struct, frozen=True):
    """A node at the other end of a connection, by its certificate."""

    node: str
    serial: str
    """Hexadecimal."""
    expires: UnixSeconds
    """Unix seconds."""
    machine: str = ""
    """Which machine it is, as it says itself; empty: it does not say."""


class Admit(Message, frozen=True):
    """A question whether a node belongs to the mesh."""

    peer: Peer


class Admitted(Message, frozen=True):
    bounds: Bounds
    conflict: str = ""
    """Why several machines seem to have its key."""
    refusal: str = ""
    """Why it is not admitted, for that reason."""


class Certify(Message, frozen=True):
    """A request for a certificate. Only the server role may ask."""

    csr: bytes
    """PEM."""
    peer: Peer | None = None
    """Who wants it; None: the server role itself."""
    lifetime: Seconds = 0.0
    """Seconds; 0, or more than is given: as long as it is given for."""


class Certified(Message, frozen=True):
    chain: bytes
    """PEM, the leaf first, without the root."""
    roots: bytes
    """PEM of all certificates to verify others by."""
    expires: UnixSeconds
    """Unix seconds."""


Messages = Enlist | Admit | Admitted | Certify | Certified
