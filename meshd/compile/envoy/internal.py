"""The way from a thin listener to an internal one: without a socket, with the filter state."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2

from meshd.compile.envoy import limits
from meshd.compile.envoy.wellknown import (
    LOCAL_ADDRESS_STATE,
    ONCE,
    REMOTE_ADDRESS_STATE,
    StateValue,
    packed,
    state_value,
)
from meshd.compile.upstream.traffic_policy import Policy, circuit_breakers


def handover() -> Iterator[StateValue]:
    """Filter state that lets the internal listener see the connection's own addresses.

    Shared once: the client's port in it would else give each connection upstream pools of its own.
    """
    yield state_value(LOCAL_ADDRESS_STATE, "%DOWNSTREAM_LOCAL_ADDRESS%", ONCE, LOCAL_ADDRESS_STATE)
    yield state_value(
        REMOTE_ADDRESS_STATE, "%DOWNSTREAM_REMOTE_ADDRESS%", ONCE, REMOTE_ADDRESS_STATE
    )


def internal_cluster(name: str, listener: str) -> cluster_pb2.Cluster:
    """Return a cluster whose one endpoint is an internal listener."""
    address = address_pb2.Address(
        envoy_internal_address=address_pb2.EnvoyInternalAddress(server_listener_name=listener)
    )
    endpoint = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=address)
    )
    raw = base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=packed(raw_buffer_pb2.RawBuffer())
    )
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.STATIC,
        circuit_breakers=circuit_breakers(Policy()),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
        transport_socket=base_pb2.TransportSocket(
            name="envoy.transport_sockets.internal_upstream",
            typed_config=packed(
                internal_upstream_pb2.InternalUpstreamTransport(transport_socket=raw)
            ),
        ),
    )
