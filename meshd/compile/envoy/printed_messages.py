"""Messages for Envoy as the bytes that it is told, which take a tenth of a message's memory."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

Message: TypeAlias = cluster_pb2.Cluster | endpoint_pb2.ClusterLoadAssignment
"""The kinds of messages of which a large mesh has many."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrintedMessage:
    """A message that is not looked into any more."""

    name: str
    kind: type[Message]
    body: bytes
    listeners: tuple[str, ...] = ()
    """The internal listeners to which endpoints lead."""
    directly: bytes = b""
    """If there are some: the same endpoints without them."""

    @classmethod
    def of(cls, message: Message) -> PrintedMessage:
        """Return a message's bytes. Equal messages have equal bytes."""
        body = message.SerializeToString(deterministic=True)
        if isinstance(message, cluster_pb2.Cluster):
            return cls(message.name, cluster_pb2.Cluster, body)
        return cls(message.cluster_name, endpoint_pb2.ClusterLoadAssignment, body)

    def message(self) -> Message:
        return self.kind.FromString(self.body)
