"""Hosts under a wildcard whose addresses the proxy looks up when a request names them.

The name is that of HTTP's host, or of the TLS hello (``resolution: DYNAMIC_DNS``):
https://istio.io/latest/docs/reference/config/networking/service-entry/#ServiceEntry-Resolution.
"""

from __future__ import annotations

import functools
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as dynamic_cluster_pb2
from envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import (
    dynamic_forward_proxy_pb2 as http_filter_pb2,
)
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import (
    sni_dynamic_forward_proxy_pb2 as sni_filter_pb2,
)
from google.protobuf import any_pb2

from meshd.compile.envoy.wellknown import filter_, packed

_HTTP_FILTER: Final = "envoy.filters.http.dynamic_forward_proxy"
_CLUSTER: Final = cluster_pb2.Cluster


@functools.cache
def dynamic_discovery(*, verified: bool) -> cluster_pb2.Cluster.CustomClusterType:
    """Return the part of a cluster for requests' hosts; ``verified``: servers show the name."""
    config = dynamic_cluster_pb2.ClusterConfig(
        dns_cache_config=_cache(), allow_insecure_cluster_options=not verified
    )
    return _CLUSTER.CustomClusterType(
        name="envoy.clusters.dynamic_forward_proxy", typed_config=packed(config)
    )


def http_filter() -> http_connection_manager_pb2.HttpFilter:
    """Return the filter that looks up hosts, on routes that ask for it.

    It exists whether any route does or not, so that one more service changes routes and no
    listener.
    """
    return http_connection_manager_pb2.HttpFilter(
        name=_HTTP_FILTER,
        typed_config=packed(http_filter_pb2.FilterConfig(dns_cache_config=_cache())),
        disabled=True,
    )


def looked_up() -> dict[str, any_pb2.Any]:
    """Return the part of a route's ``typed_per_filter_config`` that asks for a lookup."""
    return {_HTTP_FILTER: packed(http_filter_pb2.PerRouteConfig())}


def by_server_name(port: int) -> listener_components_pb2.Filter:
    """Return the network filter that looks up a TLS hello's name and connects to it on this
    port."""
    config = sni_filter_pb2.FilterConfig(dns_cache_config=_cache(), port_value=port)
    return filter_("envoy.filters.network.sni_dynamic_forward_proxy", config)


def _cache() -> dns_cache_pb2.DnsCacheConfig:
    """Return the proxy's one cache, which Envoy wants described alike wherever it is named."""
    return dns_cache_pb2.DnsCacheConfig(name="dynamic", dns_lookup_family=_CLUSTER.V4_PREFERRED)
