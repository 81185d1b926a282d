"""Bounds for every connection: how much it may hold, and how long it may take to begin."""

from __future__ import annotations

import socket
from typing import Final

from envoy.config.core.v3 import protocol_pb2, socket_option_pb2
from google.protobuf import wrappers_pb2

from meshd.model.buffers import (
    CONNECTION_BUFFER,
    CONNECTION_WINDOW,
    KIB,
    STREAM_WINDOW,
    TUNNEL_WINDOW,
    TUNNELED_WINDOW,
)

MAX_STREAMS: Final = 1024
"""Requests under way at once on one HTTP/2 connection from a client."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds in which a client has to finish its TLS handshake."""
HEADERS_TIMEOUT: Final = 10.0
"""Seconds in which a client has to send all headers of a request that it has begun. Its body may
take as long as it likes."""
FLUSH_TIMEOUT: Final = 300.0
"""Seconds in which a client has to take the next part of a response that has ended otherwise."""

_SENDING: Final = (socket.IPPROTO_TCP, 25, 128 * KIB)
"""TCP_NOTSENT_LOWAT (linux/tcp.h): bytes that the kernel takes before any of them can be sent."""
_RECEIVING: Final = (socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * KIB)
"""The kernel would let it grow to several MiB, all of which a connection that is not read fills."""


def connection_buffer() -> wrappers_pb2.UInt32Value:
    """Return what a listener or a cluster may hold of a connection."""
    return wrappers_pb2.UInt32Value(value=CONNECTION_BUFFER)


def socket_options(*, local: bool = False) -> list[socket_option_pb2.SocketOption]:
    """Return options of a socket whose far end may not read, or is not read at the proxy's other
    side.

    The kernel's buffers are made small, too. ``local``: the far end is in the proxy's own host, so
    that a window of the size of a buffer costs no throughput.
    """
    option = socket_option_pb2.SocketOption
    return [
        option(level=level, name=name, int_value=value, state=option.STATE_PREBIND)
        for level, name, value in (_SENDING, *((_RECEIVING,) if local else ()))
    ]


def http2(
    max_concurrent_streams: int | None = None,
    *,
    allow_connect: bool = False,
    keep_alive: protocol_pb2.KeepaliveSettings | None = None,
    tunnels: bool = False,
) -> protocol_pb2.Http2ProtocolOptions:
    """Options of HTTP/2, whichever side it is spoken to; ``tunnels``: streams are connections."""
    streams = max_concurrent_streams
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams={"value": streams} if streams else None,
        allow_connect=allow_connect,
        connection_keepalive=keep_alive,
        initial_stream_window_size={"value": TUNNELED_WINDOW if tunnels else STREAM_WINDOW},
        initial_connection_window_size={"value": TUNNEL_WINDOW if tunnels else CONNECTION_WINDOW},
    )
