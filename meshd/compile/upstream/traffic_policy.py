"""The DestinationRules' settings for one port of one subset, in the words of Envoy's clusters.

After https://istio.io/latest/docs/reference/config/networking/destination-rule/.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from meshd.api.protocol import Protocol
from meshd.api.traffic import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    LoadBalancerSettings,
    LocalityLbSetting,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TCPSettings,
    TrafficPolicy,
    TunnelSettings,
)
from meshd.compile.envoy.wellknown import seconds
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.nearness import Client, in_effect
from meshd.model.service import Port, Resolution, ServiceRecord
from meshd.model.snapshot import UNLIMITED, MeshOptions

_CLUSTER: Final = cluster_pb2.Cluster
_UNLIMITED: Final = MeshOptions()
_DEFAULT_AGGRESSION: Final = 1.0
_DEFAULT_RETRY_PERCENT: Final = 20.0
_DEFAULT_RETRIES: Final = 3


class Policy(msgspec.Struct, frozen=True):
    """The settings that hold for one port of one subset."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    @property
    def consistent_hash(self) -> ConsistentHash | None:
        return self.load_balancer.consistent_hash if self.load_balancer else None

    def nearness(self, service: ServiceRecord, client: Client | None) -> LocalityLbSetting | None:
        """Return the setting that orders a client's endpoints; None: all are alike to it."""
        return in_effect(self.load_balancer, self.outlier_detection, service, client)

    @property
    def passthrough(self) -> bool:
        """Return whether connections go where the client wanted, without load balancing."""
        return self.load_balancer is not None and self.load_balancer.simple == "PASSTHROUGH"

    @property
    def tcp(self) -> TCPSettings:
        return (self.connection_pool and self.connection_pool.tcp) or TCPSettings()


def connects_to_original_destination(service: ServiceRecord, port: Port, policy: Policy) -> bool:
    """Return whether the client's own destination is used rather than one of the endpoints.

    A headless service's client has chosen an endpoint itself. With HTTP the host decides, so that
    requests can be routed and balanced.
    """
    if service.headless and not policy.passthrough:
        return not port.protocol.is_http
    return policy.passthrough or service.resolution is Resolution.NONE


def is_different_at_gateways(service: ServiceRecord, rules: RuleSet) -> bool:
    """Return whether a gateway may not share the clusters that workloads have."""
    subsets = ("", *(subset.name for subset in (rules.spec.subsets if rules.spec else ())))
    return any(
        port.protocol is Protocol.SNIFFED
        or connects_to_original_destination(
            service, port, effective_policy(rules, port.number, subset)
        )
        for port in service.ports
        for subset in subsets
    )


def effective_policy(rules: RuleSet, port: int, subset: str = "") -> Policy:
    """Return the rules' own settings, with those of the subset over them.

    Settings of a port replace all others at their level: what they leave out is at its default.
    Those that no port can have are the level's.
    """
    policy = _at_level(rules.policy, port, Policy())
    chosen = rules.subset(subset) if subset else None
    if chosen:
        policy = _at_level(chosen.traffic_policy, port, policy)
    return _as_wished(policy) if rules.sticky else policy


def _as_wished(policy: Policy) -> Policy:
    """Return the policy for one endpoint for each client address (``sessionAffinity:
    ClientIP``)."""
    asked = policy.load_balancer or LoadBalancerSettings()
    if asked.consistent_hash or asked.simple not in {None, "UNSPECIFIED"}:
        return policy
    hashing = ConsistentHash(use_source_ip=True)
    return msgspec.structs.replace(
        policy, load_balancer=msgspec.structs.replace(asked, simple=None, consistent_hash=hashing)
    )


def _at_level(level: TrafficPolicy | None, port: int, below: Policy) -> Policy:
    if level is None:
        return below
    whole = (
        level.tunnel or below.tunnel,
        level.proxy_protocol or below.proxy_protocol,
        level.retry_budget or below.retry_budget,
    )
    if entry := level.by_port.get(port):
        return Policy(
            entry.load_balancer,
            entry.connection_pool,
            entry.outlier_detection,
            entry.tls,
            *whole,
        )
    return Policy(
        level.load_balancer or below.load_balancer,
        level.connection_pool or below.connection_pool,
        level.outlier_detection or below.outlier_detection,
        level.tls or below.tls,
        *whole,
    )


def load_balancing(policy: Policy) -> cluster_pb2.Cluster:
    """Return the part of a cluster that balances: LEAST_REQUEST by default."""
    settings = policy.load_balancer or LoadBalancerSettings()
    if settings.consistent_hash:
        return _hashing(settings.consistent_hash)
    if settings.simple == "RANDOM":
        return _CLUSTER(lb_policy=_CLUSTER.RANDOM)
    slow_start = _slow_start(settings)
    if settings.simple == "ROUND_ROBIN":
        config = _CLUSTER.RoundRobinLbConfig(slow_start_config=slow_start)
        return _CLUSTER(
            lb_policy=_CLUSTER.ROUND_ROBIN, round_robin_lb_config=config if slow_start else None
        )
    config = _CLUSTER.LeastRequestLbConfig(slow_start_config=slow_start)
    return _CLUSTER(
        lb_policy=_CLUSTER.LEAST_REQUEST, least_request_lb_config=config if slow_start else None
    )


def _hashing(settings: ConsistentHash) -> cluster_pb2.Cluster:
    if settings.maglev:
        size = settings.maglev.table_size
        return _CLUSTER(
            lb_policy=_CLUSTER.MAGLEV,
            maglev_lb_config=_CLUSTER.MaglevLbConfig(table_size={"value": size} if size else None),
        )
    asked = settings.ring_hash.minimum_ring_size if settings.ring_hash else None
    size = asked or settings.minimum_ring_size or 1024
    return _CLUSTER(
        lb_policy=_CLUSTER.RING_HASH,
        ring_hash_lb_config=_CLUSTER.RingHashLbConfig(minimum_ring_size={"value": size}),
    )


def _slow_start(settings: LoadBalancerSettings) -> cluster_pb2.Cluster.SlowStartConfig | None:
    """Return the setting by which a new endpoint gets its share gradually; None: at once."""
    warmup = settings.warmup
    duration = warmup.duration if warmup else settings.warmup_duration_secs
    if not duration:
        return None
    minimum = warmup.minimum_percent if warmup else None
    aggression = (warmup.aggression if warmup else None) or _DEFAULT_AGGRESSION
    return _CLUSTER.SlowStartConfig(
        slow_start_window=seconds(duration),
        aggression={"default_value": aggression, "runtime_key": "meshd.warmup.aggression"},
        min_weight_percent=percent_pb2.Percent(value=10 if minimum is None else minimum),
    )


def circuit_breakers(
    policy: Policy, options: MeshOptions = _UNLIMITED
) -> circuit_breaker_pb2.CircuitBreakers:
    """Return circuit breakers, without limits unless a rule asks for them or the proxy needs them.

    Statistics show what is left of a limit. Each member of the pool counts for itself, and has its
    part.
    """
    pool = policy.connection_pool or ConnectionPoolSettings()
    http = pool.http

    def limit(asked: int | None, most: int = UNLIMITED) -> wrappers_pb2.UInt32Value:
        part = math.ceil(asked / options.proxies) if asked else UNLIMITED
        return wrappers_pb2.UInt32Value(value=min(part, most))

    return circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            circuit_breaker_pb2.CircuitBreakers.Thresholds(
                track_remaining=True,
                retry_budget=_retry_budget(policy.retry_budget),
                max_connections=limit(policy.tcp.max_connections, options.upstream_connections),
                max_pending_requests=limit(http and http.http1_max_pending_requests),
                max_requests=limit(http and http.http2_max_requests),
                max_retries=limit(http and http.max_retries),
            )
        ]
    )


def _retry_budget(
    asked: RetryBudget | None,
) -> circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget | None:
    """Return a budget in place of a number of retries, with Istio's defaults."""
    if asked is None:
        return None
    percent = _DEFAULT_RETRY_PERCENT if asked.percent is None else asked.percent
    least = asked.min_retry_concurrency
    return circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget(
        budget_percent=percent_pb2.Percent(value=percent),
        min_retry_concurrency={"value": _DEFAULT_RETRIES if least is None else least},
    )


def keepalive(policy: Policy) -> cluster_pb2.UpstreamConnectionOptions | None:
    """Return TCP keep-alive towards the endpoints; None: the kernel's default, which is off."""
    asked = policy.tcp.tcp_keepalive
    if asked is None:
        return None

    def number(value: float | None) -> wrappers_pb2.UInt32Value | None:
        return wrappers_pb2.UInt32Value(value=int(value)) if value else None

    return cluster_pb2.UpstreamConnectionOptions(
        tcp_keepalive=address_pb2.TcpKeepalive(
            keepalive_probes=number(asked.probes),
            keepalive_time=number(asked.time),
            keepalive_interval=number(asked.interval),
        )
    )


def outlier_detection(
    settings: OutlierDetection | None,
) -> outlier_detection_pb2.OutlierDetection | None:
    """Return how a cluster ejects failing endpoints; None if that is not asked for."""
    if settings is None:
        return None
    made = outlier_detection_pb2.OutlierDetection(
        enforcing_success_rate={"value": 0},
        interval=seconds(settings.interval) if settings.interval else None,
        base_ejection_time=(
            seconds(settings.base_ejection_time) if settings.base_ejection_time else None
        ),
        max_ejection_percent=(
            {"value": settings.max_ejection_percent} if settings.max_ejection_percent else None
        ),
        split_external_local_origin_errors=settings.split_external_local_origin_errors or False,
    )
    in_a_row, gateway = settings.consecutive_5xx_errors, settings.consecutive_gateway_errors
    if settings.consecutive_errors and in_a_row is None:
        in_a_row = 0
    _limit(made.enforcing_consecutive_5xx, made.consecutive_5xx, in_a_row)
    _limit(
        made.enforcing_consecutive_gateway_failure,
        made.consecutive_gateway_failure,
        gateway or settings.consecutive_errors,
    )
    if settings.split_external_local_origin_errors:
        _limit(
            made.enforcing_consecutive_local_origin_failure,
            made.consecutive_local_origin_failure,
            settings.consecutive_local_origin_failures,
        )
    return made


def _limit(
    enforcing: wrappers_pb2.UInt32Value, number: wrappers_pb2.UInt32Value, limit: int | None
) -> None:
    """Return how many failures of a kind in a row eject an endpoint; 0: that kind never does."""
    if limit is not None:
        enforcing.value = 100 if limit else 0
    if limit:
        number.value = limit


def common_balancing(
    policy: Policy, nearness: LocalityLbSetting | None
) -> cluster_pb2.Cluster.CommonLbConfig | None:
    """Return when failing endpoints are used all the same, and whether localities have weights."""
    outliers = policy.outlier_detection
    if outliers is None and not (nearness and nearness.distribute):
        return None
    config = _CLUSTER.CommonLbConfig()
    if outliers is not None:
        panic = percent_pb2.Percent(value=outliers.min_health_percent or 0)
        config.healthy_panic_threshold.CopyFrom(panic)
    if nearness and nearness.distribute:
        config.locality_weighted_lb_config.SetInParent()
    return config
