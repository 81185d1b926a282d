"""The PROXY protocol towards endpoints, which names the client before anything else.

https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt
"""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, proxy_protocol_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2

from meshd.api.traffic import ProxyProtocol
from meshd.compile.envoy.wellknown import packed


def announce_clients(cluster: cluster_pb2.Cluster, asked: ProxyProtocol) -> None:
    """Put the protocol around whatever the cluster's connections are secured by."""
    for match in cluster.transport_socket_matches:
        match.transport_socket.CopyFrom(_around(match.transport_socket, asked))
    if cluster.HasField("transport_socket"):
        cluster.transport_socket.CopyFrom(_around(cluster.transport_socket, asked))
    elif not cluster.transport_socket_matches:
        cluster.transport_socket.CopyFrom(_around(_plain(), asked))


def _plain() -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer",
        typed_config=packed(raw_buffer_pb2.RawBuffer()),
    )


def _around(socket: base_pb2.TransportSocket, asked: ProxyProtocol) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.upstream_proxy_protocol",
        typed_config=packed(
            upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport(
                config=proxy_protocol_pb2.ProxyProtocolConfig(version=asked.version),
                transport_socket=socket,
            )
        ),
    )
