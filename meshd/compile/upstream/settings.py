"""The settings of an upstream's connections, from the policy that holds for it.

After https://istio.io/latest/docs/reference/config/networking/destination-rule/.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from meshd.api.destination_rule.types import (
    LARGEST_RING,
    LARGEST_TABLE,
    SHORTEST_LOOK,
    ConnectionPoolSettings,
    ConsistentHash,
    HTTPSettings,
    LoadBalancerSettings,
    LocalityLbSetting,
    OutlierDetection,
)
from meshd.api.networking import RetryBudget
from meshd.api.protocol import Protocol
from meshd.compile.plan import upstreams as plan
from meshd.compile.plan.upstreams import HttpVersion
from meshd.compile.upstream.traffic_policy import Policy
from meshd.model.interception import PROXY_MARK
from meshd.model.snapshot import UNLIMITED, MeshOptions

_DEFAULT_AGGRESSION: Final = 1.0
_DEFAULT_WARMUP_PERCENT: Final = 10.0
_DEFAULT_RETRY_PERCENT: Final = 20.0
_DEFAULT_RETRIES: Final = 3
_DEFAULT_RING: Final = 1024


def settings(
    policy: Policy,
    options: MeshOptions,
    http: plan.Http | None,
    nearness: LocalityLbSetting | None,
    *,
    balanced: bool,
) -> plan.Settings:
    """Return the settings; ``balanced``: the proxy chooses among endpoints that it knows."""
    return plan.Settings(
        connect_timeout=policy.tcp.connect_timeout or options.connect_timeout,
        balancing=balancing(policy) if balanced else None,
        by_locality=bool(nearness and nearness.distribute),
        limits=limits(policy, options),
        ejection=ejection(policy.outlier_detection),
        keepalive=keepalive(policy),
        http=http,
        mark=PROXY_MARK,
    )


def balancing(policy: Policy) -> plan.Balancing:
    """Return how an endpoint is chosen: by the fewest requests by default."""
    asked = policy.load_balancer
    if asked is None:
        return plan.LeastRequest()
    if asked.consistent_hash:
        return _hashing(asked.consistent_hash)
    if asked.simple == "RANDOM":
        return plan.Random()
    kind = plan.RoundRobin if asked.simple == "ROUND_ROBIN" else plan.LeastRequest
    return kind(_slow_start(asked))


def _hashing(asked: ConsistentHash) -> plan.Balancing:
    if asked.maglev:
        size = asked.maglev.table_size
        return plan.Maglev(min(size, LARGEST_TABLE) if size else None)
    ring = asked.ring_hash.minimum_ring_size if asked.ring_hash else None
    size = ring or asked.minimum_ring_size or _DEFAULT_RING
    return plan.RingHash(min(size, LARGEST_RING))


def _slow_start(asked: LoadBalancerSettings) -> plan.SlowStart | None:
    warmup = asked.warmup
    window = warmup.duration if warmup else asked.warmup_duration_secs
    if not window:
        return None
    minimum = warmup.minimum_percent if warmup else None
    return plan.SlowStart(
        window,
        (warmup.aggression if warmup else None) or _DEFAULT_AGGRESSION,
        _DEFAULT_WARMUP_PERCENT if minimum is None else minimum,
    )


def limits(policy: Policy, options: MeshOptions) -> plan.Limits:
    """Return limits that a rule asks for, or that the proxy needs for itself.

    Each member of the pool counts for itself, and has its part.
    """
    pool = policy.connection_pool or ConnectionPoolSettings()
    http = pool.http

    def part(asked: int | None, most: int = UNLIMITED) -> int:
        return min(math.ceil(asked / options.proxies) if asked else UNLIMITED, most)

    return plan.Limits(
        connections=part(policy.tcp.max_connections, options.upstream_connections),
        pending_requests=part(http and http.http1_max_pending_requests),
        requests=part(http and http.http2_max_requests),
        retries=part(http and http.max_retries),
        retry_budget=_retry_budget(policy.retry_budget),
    )


def _retry_budget(asked: RetryBudget | None) -> plan.RetryBudget | None:
    """Return a budget with Istio's defaults."""
    if asked is None:
        return None
    least = asked.min_retry_concurrency
    return plan.RetryBudget(
        _DEFAULT_RETRY_PERCENT if asked.percent is None else asked.percent,
        _DEFAULT_RETRIES if least is None else least,
    )


def keepalive(policy: Policy) -> plan.Keepalive | None:
    """Return TCP keep-alive towards the endpoints; None: the kernel's default, which is off."""
    asked = policy.tcp.tcp_keepalive
    if asked is None:
        return None
    return plan.Keepalive(
        asked.probes or None, int(asked.time or 0) or None, int(asked.interval or 0) or None
    )


def ejection(asked: OutlierDetection | None) -> plan.Ejection | None:
    """Return when failing endpoints are ejected; None if that is not asked for."""
    if asked is None:
        return None
    errors = asked.consecutive_5xx_errors
    if asked.consecutive_errors and errors is None:
        errors = 0
    separates_local = bool(asked.split_external_local_origin_errors)
    return plan.Ejection(
        errors=errors,
        gateway_errors=asked.consecutive_gateway_errors or asked.consecutive_errors,
        local_failures=asked.consecutive_local_origin_failures if separates_local else None,
        separates_local=separates_local,
        interval=max(asked.interval, SHORTEST_LOOK) if asked.interval else None,
        duration=asked.base_ejection_time or None,
        most_percent=asked.max_ejection_percent or None,
        minimum_healthy_percent=asked.min_health_percent or 0,
    )


def http_of_upstream(
    protocol: Protocol, policy: Policy, host: str, *, as_asked: bool = True
) -> plan.Http | None:
    """Return how HTTP is spoken to the endpoints; ``as_asked``: where nothing is declared, as the
    client does."""
    if not protocol.is_for("http"):
        return None
    asked = (policy.connection_pool and policy.connection_pool.http) or HTTPSettings()
    http = plan.Http(
        version=_version(protocol, asked, as_asked=as_asked),
        idle_timeout=asked.idle_timeout or None,
        max_connection_duration=policy.tcp.max_connection_duration or None,
        max_requests_per_connection=asked.max_requests_per_connection or None,
        names_from_requests=_names_from_requests(policy, host),
    )
    if http.version is HttpVersion.HTTP1:
        return None if http == _ONLY_HTTP1 else http
    return plan.Http(
        http.version,
        asked.max_concurrent_streams or None,
        _ping(asked),
        http.idle_timeout,
        http.max_connection_duration,
        http.max_requests_per_connection,
        http.names_from_requests,
    )


_ONLY_HTTP1: Final = plan.Http(HttpVersion.HTTP1)


def _version(protocol: Protocol, asked: HTTPSettings, *, as_asked: bool) -> HttpVersion:
    if asked.use_client_protocol or (protocol is Protocol.SNIFFED and as_asked):
        return HttpVersion.CLIENTS
    if protocol in {Protocol.HTTP, Protocol.SNIFFED}:
        return HttpVersion.HTTP1
    return HttpVersion.HTTP2


def _ping(asked: HTTPSettings) -> plan.Ping | None:
    ping = asked.http2_keep_alive
    if ping is None or ping.interval is None or ping.timeout is None:
        return None
    return plan.Ping(ping.interval, ping.timeout)


def _names_from_requests(policy: Policy, host: str) -> Literal["", "unverified", "verified"]:
    """Return whether TLS to a wildcard host has each request's own host as its server name."""
    tls = policy.tls
    if tls is None or tls.mode not in {"SIMPLE", "MUTUAL"} or tls.sni or not host.startswith("*"):
        return ""
    return "verified" if is_verified(policy) else "unverified"


def is_verified(policy: Policy) -> bool:
    """Return whether a server must show the requested name."""
    tls = policy.tls
    return tls is None or not (tls.insecure_skip_verify or tls.subject_alt_names)
