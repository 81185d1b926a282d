"""The path from each workload's namespace to the resolver that knows the mesh's names as it does.

A workload's queries arrive at UDP port 15053 of its namespace and go on to the resolver's port on
the host's loopback interface. Those over TCP come through the outbound listener, and the scope's
listener knows them by their port. Envoy does not look at the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2, udp_listener_config_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2

from meshd.compile.envoy import limits
from meshd.compile.envoy.listeners import chain, in_namespace
from meshd.compile.envoy.wellknown import filter_, packed, seconds, socket_address
from meshd.compile.upstream.traffic_policy import Policy, circuit_breakers
from meshd.model.interception import DNS_PORT
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

DNS_CLUSTER: Final = "dns"
DNS_CHAIN: Final = "dns"
_LOOPBACK: Final = "127.0.0.1"
_SESSION: Final = 5.0
"""Seconds that a query may wait for its answer, and a TCP connection for the next query: resolvers
give up sooner."""


def resolver_of(namespace: str, resolvers: Mapping[str, str]) -> str:
    """Return the cluster of a namespace's resolver: its own, or the node's."""
    return f"{DNS_CLUSTER}@{namespace}" if namespace in resolvers else DNS_CLUSTER


def workload_listener(
    workload: Workload, resolver: str, options: MeshOptions
) -> listener_pb2.Listener:
    """Return the listener for what the namespace's rules redirect to port 15053."""
    proxy = udp_proxy_pb2.UdpProxyConfig(
        stat_prefix="dns",
        idle_timeout=seconds(_SESSION),
        # Not the matcher, of which Envoy warns each time that it is not finished.
        cluster=resolver,
    )
    return in_namespace(
        workload,
        "dns",
        DNS_PORT,
        options,
        listener_pb2.Listener(
            udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
            listener_filters=[
                listener_components_pb2.ListenerFilter(
                    name="envoy.filters.udp_listener.udp_proxy", typed_config=packed(proxy)
                )
            ],
        ),
        udp=True,
    )


def tcp_chain(resolver: str) -> listener_components_pb2.FilterChain:
    """Return the chain for queries over TCP, which clients send if an answer is too long for a
    datagram."""
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="dns", cluster=resolver, idle_timeout=seconds(_SESSION)
    )
    return chain(DNS_CHAIN, None, [filter_("envoy.filters.network.tcp_proxy", proxy)])


def clusters(
    options: MeshOptions, resolvers: Mapping[str, str], *, udp: bool
) -> Iterator[cluster_pb2.Cluster]:
    yield _cluster(DNS_CLUSTER, _LOOPBACK, options, udp=udp)
    for namespace, address in sorted(resolvers.items()):
        yield _cluster(resolver_of(namespace, resolvers), address, options, udp=udp)


def _cluster(name: str, address: str, options: MeshOptions, *, udp: bool) -> cluster_pb2.Cluster:
    endpoint = endpoint_components_pb2.Endpoint(
        address=socket_address(address, options.dns_port, udp=udp)
    )
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.STATIC,
        circuit_breakers=circuit_breakers(Policy(), options),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    lb_endpoints=[endpoint_components_pb2.LbEndpoint(endpoint=endpoint)]
                )
            ],
        ),
    )
