"""TCP proxies: to one cluster, or to several by weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from meshd.compile.envoy.wellknown import filter_, seconds
from meshd.compile.telemetry.access_log import access_logs
from meshd.compile.upstream.traffic_policy import Policy
from meshd.model.snapshot import MeshOptions

_Proxy = tcp_proxy_pb2.TcpProxy


_MAX_EARLY_DATA: Final = 64 * 1024
"""Bytes that are kept until the upstream connection is there."""
_ATTEMPTS: Final = 3
"""As many as an HTTP request has: where the first one ended may be a member of the pool that was
killed just then."""


def tcp_proxy(
    stat_prefix: str,
    clusters: Sequence[tuple[str, int]],
    options: MeshOptions | None = None,
    *,
    after_handshake: bool = False,
    policy: Policy | None = None,
) -> listener_components_pb2.Filter:
    """Return a TCP proxy to these clusters by weight; without options, as for hops inside the
    proxy, there is no access log.

    Clusters of weight 0 get nothing, as with HTTP routes; one alone needs no weight. ``policy`` is
    that of the first: what holds for a connection cannot differ among them. ``after_handshake``:
    connect no sooner than the client's certificate is known.
    """
    proxy = _Proxy(stat_prefix=stat_prefix, access_log=access_logs(options) if options else ())
    if len(clusters) == 1:
        proxy.cluster = clusters[0][0]
    else:
        proxy.weighted_clusters.clusters.extend(
            _Proxy.WeightedCluster.ClusterWeight(name=name, weight=weight)
            for name, weight in clusters
            if weight > 0
        )
    if policy is not None:
        proxy.max_connect_attempts.value = _ATTEMPTS
        _hold_to(proxy, policy)
    if after_handshake:
        proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
        proxy.max_early_data_bytes.value = _MAX_EARLY_DATA
    return filter_("envoy.filters.network.tcp_proxy", proxy)


def _hold_to(proxy: tcp_proxy_pb2.TcpProxy, policy: Policy) -> None:
    if policy.tcp.idle_timeout is not None:
        proxy.idle_timeout.CopyFrom(seconds(policy.tcp.idle_timeout))
    if policy.consistent_hash and policy.consistent_hash.use_source_ip:
        proxy.hash_policy.add().source_ip.SetInParent()
    if tunnel := policy.tunnel:
        proxy.tunneling_config.hostname = (
            f"{_in_authority(tunnel.target_host)}:{tunnel.target_port}"
        )
        proxy.tunneling_config.use_post = tunnel.protocol == "POST"


def _in_authority(host: str) -> str:
    return f"[{host}]" if ":" in host else host
