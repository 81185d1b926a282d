"""mesh → capture: connections that are open to a workload's application, and the end of some."""

from __future__ import annotations

from meshd.model.open_connection import OpenConnection
from meshd.wire.message import Message


class ListConnections(Message, frozen=True):
    """List those that proxies have opened; of a service of the host, there are none."""

    uid: str


class OpenConnections(Message, frozen=True):
    """The connections; each is told for both ends, see ``capture.pods.sockets``."""

    connections: tuple[OpenConnection, ...]


class EndConnections(Message, frozen=True):
    """End those of them that are still open."""

    uid: str
    connections: tuple[OpenConnection, ...]


class Ended(Message, frozen=True):
    """They are ended."""

    count: int


ConnectionRequest = ListConnections | EndConnections
Messages = ConnectionRequest | OpenConnections | Ended
