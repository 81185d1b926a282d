"""Prints filter chains: the filters that carry out what a chain of the plan is for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.direct_response.v3 import config_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from meshd.compile.envoy import authorization, dynamic_dns, filter_state, hbone, limits
from meshd.compile.envoy.access_log import access_logs
from meshd.compile.envoy.copies import copies_manager
from meshd.compile.envoy.http_connections import connection_manager
from meshd.compile.envoy.server_tls import server_tls
from meshd.compile.envoy.wellknown import filter_, seconds
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import (
    Answer,
    Chain,
    Copies,
    Hbone,
    Http,
    Refusal,
    Tcp,
    Tunnel,
    Tunneled,
)

_Proxy = tcp_proxy_pb2.TcpProxy
_Filter = listener_components_pb2.Filter
_PROXY: Final = "envoy.filters.network.tcp_proxy"
_MAX_EARLY_DATA = 64 * 1024
"""Bytes that are kept until the upstream connection is there."""


@functools.lru_cache(maxsize=4096)
def chain(plan: Chain) -> listener_components_pb2.FilterChain:
    """Return the message of a chain. The listener's tree leads to it by its name.

    Most chains are those of a service, alike in every scope: messages are shared, so copy them and
    never change them.
    """
    state = filter_state.of_chain(plan)
    made = listener_components_pb2.FilterChain(
        name=plan.name, filters=[*([state] if state else ()), *_filters(plan)]
    )
    if plan.tls is not None:
        made.transport_socket.CopyFrom(server_tls(plan.tls))
        made.transport_socket_connect_timeout.CopyFrom(seconds(limits.HANDSHAKE_TIMEOUT))
    return made


def judged_chain(found: listener_components_pb2.FilterChain, rules: Authorization) -> None:
    """Write other rules into a gateway's chain, if its connections are not HTTP."""
    if not found.filters or found.filters[-1].name != _PROXY:
        return
    others = [one for one in found.filters if not authorization.judges(one)]
    judging = authorization.connection_filters(rules)
    del found.filters[:]
    found.filters.extend((*others[:-1], *judging, others[-1]))


def _filters(plan: Chain) -> Iterator[listener_components_pb2.Filter]:
    target = plan.target
    match target:
        case Tcp():
            if target.lookup_port:
                yield dynamic_dns.by_server_name(target.lookup_port)
            yield from authorization.connection_filters(target.rules)
            if target.most:
                yield _limit(target)
            yield tcp_proxy(target)
        case Http():
            yield connection_manager(target)
        case Tunneled():
            yield hbone.tunnel_manager(target)
        case Copies():
            yield copies_manager(target)
        case Answer(text):
            answer = config_pb2.Config(response=base_pb2.DataSource(inline_string=text))
            yield filter_("envoy.filters.network.direct_response", answer)
        case Refusal():
            """A chain without a filter hangs up at once."""


def _limit(target: Tcp) -> listener_components_pb2.Filter:
    limit = connection_limit_pb2.ConnectionLimit(
        stat_prefix=target.statistics, max_connections={"value": target.most}
    )
    return filter_("envoy.filters.network.connection_limit", limit)


def tcp_proxy(target: Tcp) -> listener_components_pb2.Filter:
    proxy = _Proxy(
        stat_prefix=target.statistics,
        access_log=access_logs(target.access_log, denied=target.denied),
        max_connect_attempts={"value": target.attempts} if target.attempts > 1 else None,
        idle_timeout=None if target.idle_timeout is None else seconds(target.idle_timeout),
        hash_policy=[{"source_ip": {}}] if target.by_client_address else (),
    )
    if target.pause:
        proxy.backoff_options.base_interval.CopyFrom(seconds(target.pause))
    if len(target.upstreams) == 1:
        proxy.cluster = target.upstreams[0][0]
    else:
        proxy.weighted_clusters.clusters.extend(
            _Proxy.WeightedCluster.ClusterWeight(name=name, weight=weight)
            for name, weight in target.upstreams
            if weight > 0
        )
    match target.tunnel:
        case Hbone():
            hbone.put_tunnel(proxy.tunneling_config)
        case Tunnel():
            proxy.tunneling_config.hostname = _authority(target.tunnel)
            proxy.tunneling_config.use_post = target.tunnel.use_post
        case None:
            pass
    if target.after_handshake:
        proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
        proxy.max_early_data_bytes.value = _MAX_EARLY_DATA
    return filter_(_PROXY, proxy)


def _authority(tunnel: Tunnel) -> str:
    host = f"[{tunnel.host}]" if ":" in tunnel.host else tunnel.host
    return f"{host}:{tunnel.port}"
