"""Prints upstreams: clusters.

Most clusters differ in names only. What they share is made once for each set of settings, and
copied; the rest is written in place, because a message that is put into another one is copied by
way of its bytes.
"""

from __future__ import annotations

import functools
from typing import Final, assert_never

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.extensions.clusters.common.dns.v3 import dns_pb2
from envoy.extensions.clusters.dns.v3 import dns_cluster_pb2
from envoy.type.metadata.v3 import metadata_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy.assignments import TUNNEL, load_assignment
from meshd.compile.envoy.cluster_settings import common_part
from meshd.compile.envoy.dynamic_dns import dynamic_discovery
from meshd.compile.envoy.transport_sockets import (
    allow_internal,
    announce_clients,
    internal_socket,
    secure,
)
from meshd.compile.envoy.wellknown import over_ads, packed, seconds, socket_address
from meshd.compile.plan.upstreams import (
    Dns,
    DynamicDns,
    Eds,
    Fixed,
    InternalListener,
    OriginalDestination,
    TunnelEnd,
    Upstream,
)

_CLUSTER: Final = cluster_pb2.Cluster
_DNS_REFRESH: Final = 60.0
"""Seconds, where the answer itself does not say for how long it holds."""


def cluster(upstream: Upstream) -> cluster_pb2.Cluster:
    made = _CLUSTER()
    made.CopyFrom(common_part(upstream.settings))
    name = made.name = str(upstream.name)
    match upstream.discovery:
        case Eds():
            made.type = _CLUSTER.EDS
            made.eds_cluster_config.CopyFrom(_EDS)
            made.eds_cluster_config.service_name = upstream.discovery.name
        case OriginalDestination():
            made.type = _CLUSTER.ORIGINAL_DST
            made.lb_policy = _CLUSTER.CLUSTER_PROVIDED
        case TunnelEnd():
            made.type = _CLUSTER.ORIGINAL_DST
            made.lb_policy = _CLUSTER.CLUSTER_PROVIDED
            made.original_dst_lb_config.metadata_key.CopyFrom(_TUNNEL_END)
            made.cleanup_interval.CopyFrom(seconds(_TUNNEL_IDLE))
        case Dns():
            made.cluster_type.name = "envoy.clusters.dns"
            made.cluster_type.typed_config.CopyFrom(
                _resolver(first_only=upstream.discovery.first_address_only)
            )
            made.load_assignment.CopyFrom(load_assignment(upstream.discovery.assignment))
        case DynamicDns():
            made.lb_policy = _CLUSTER.CLUSTER_PROVIDED
            made.cluster_type.CopyFrom(dynamic_discovery(verified=upstream.discovery.verified))
        case Fixed():
            made.type = _CLUSTER.STATIC
            if upstream.discovery.address:
                _put_address(made, name, _address(upstream.discovery))
        case InternalListener():
            made.type = _CLUSTER.STATIC
            _put_address(made, name, _internal_address(upstream.discovery))
            made.transport_socket.CopyFrom(internal_socket())
        case _:
            assert_never(upstream.discovery)
    secure(made, upstream.tls, upstream.trust_domain)
    if upstream.short_way or upstream.tunneled:
        allow_internal(made, inside=upstream.short_way, tunneled=upstream.tunneled)
    if upstream.proxy_protocol:
        announce_clients(made, upstream.proxy_protocol)
    return made


_TUNNEL_END: Final = metadata_pb2.MetadataKey(
    key=TUNNEL, path=[metadata_pb2.MetadataKey.PathSegment(key="address")]
)
_TUNNEL_IDLE: Final = 60.0
"""Seconds between two looks at which ends of tunnels are still used."""
_EDS: Final = _CLUSTER.EdsClusterConfig(eds_config=over_ads())


@functools.cache
def _resolver(*, first_only: bool) -> any_pb2.Any:
    return packed(
        dns_cluster_pb2.DnsCluster(
            dns_lookup_family=dns_pb2.V4_PREFERRED,
            dns_refresh_rate=seconds(_DNS_REFRESH),
            dns_failure_refresh_rate=dns_cluster_pb2.DnsCluster.RefreshRate(
                base_interval=seconds(1), max_interval=seconds(10)
            ),
            respect_dns_ttl=True,
            all_addresses_in_single_endpoint=first_only,
        )
    )


def _put_address(made: cluster_pb2.Cluster, name: str, address: address_pb2.Address) -> None:
    made.load_assignment.cluster_name = name
    made.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.CopyFrom(address)


def _address(fixed: Fixed) -> address_pb2.Address:
    return socket_address(fixed.address, fixed.port, udp=fixed.udp)


def _internal_address(listener: InternalListener) -> address_pb2.Address:
    return address_pb2.Address(
        envoy_internal_address=address_pb2.EnvoyInternalAddress(server_listener_name=listener.name)
    )
