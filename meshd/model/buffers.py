"""The sizes of a proxy's buffers, for what one side sends and the other does not accept yet.

A connection of a workload passes several buffers in a proxy, each of which may be full at once when
its far end does not read. Of Envoy's defaults, 1 MiB for each buffer and 24 MiB for the window of
each HTTP/2 connection, a few hundred such connections fill any machine. The sizes are those of
https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/best_practices/edge.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
CONNECTION_BUFFER: Final = 32 * KIB
"""Bytes of each buffer of a connection, whether it has a socket or stays inside the proxy."""
STREAM_WINDOW: Final = 64 * KIB
"""Bytes of one HTTP/2 stream that its sender may send before the receiver has taken any."""
TUNNELED_WINDOW: Final = 512 * KIB
"""The same of a stream that is a user's connection between two nodes."""
TUNNEL_WINDOW: Final = 4 * 1024 * KIB
"""And of all such streams of a connection together."""
CONNECTION_WINDOW: Final = 1024 * KIB
"""The same of all streams of a connection together."""
