"""The other end of a gRPC call, as far as it matters who it is."""

from __future__ import annotations

from typing import Protocol

import grpc.aio


class Caller(Protocol):
    """A gRPC context, whatever the messages of its method."""

    def peer(self) -> str: ...

    def invocation_metadata(self) -> grpc.aio.Metadata | None: ...
