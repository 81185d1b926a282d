# pyright: reportAttributeAccessIssue=false
"""What DestinationRules say about one port of one subset, and how Envoy's clusters say it.

After https://istio.io/latest/docs/reference/config/networking/destination-rule/.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2
from envoy.type.v3 import percent_pb2

from meshd.compile.destination_rules import RuleSet
from meshd.compile.wellknown import seconds
from meshd.model.traffic import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    LoadBalancerSettings,
    OutlierDetection,
    TCPSettings,
    TrafficPolicy,
)

UNLIMITED: Final = 2**32 - 1
_CLUSTER: Final = cluster_pb2.Cluster
_DEFAULT_AGGRESSION: Final = 1.0


class Policy(msgspec.Struct, frozen=True):
    """The settings that hold for one port of one subset."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None

    @property
    def consistent_hash(self) -> ConsistentHash | None:
        return self.load_balancer.consistent_hash if self.load_balancer else None

    @property
    def passthrough(self) -> bool:
        """Connections go where the client wanted them to go, without load balancing."""
        return self.load_balancer is not None and self.load_balancer.simple == "PASSTHROUGH"

    @property
    def tcp(self) -> TCPSettings:
        return (self.connection_pool and self.connection_pool.tcp) or TCPSettings()


def effective_policy(rules: RuleSet, port: int, subset: str = "") -> Policy:
    """The rules' own settings, those of the subset over them.

    Settings of a port replace all others at their level: what they leave out is at its default.
    """
    policy = _at_level(rules.policy, port, Policy())
    chosen = rules.subset(subset) if subset else None
    return _at_level(chosen.traffic_policy, port, policy) if chosen else policy


def _at_level(level: TrafficPolicy | None, port: int, below: Policy) -> Policy:
    if level is None:
        return below
    for entry in level.port_level_settings:
        if entry.port.number == port:
            return Policy(
                entry.load_balancer, entry.connection_pool, entry.outlier_detection, entry.tls
            )
    return Policy(
        level.load_balancer or below.load_balancer,
        level.connection_pool or below.connection_pool,
        level.outlier_detection or below.outlier_detection,
        level.tls or below.tls,
    )


def load_balancing(policy: Policy) -> dict[str, Any]:
    """Fields of a cluster that balances: LEAST_REQUEST unless something else is asked for."""
    settings = policy.load_balancer or LoadBalancerSettings()
    if settings.consistent_hash:
        return _hashing(settings.consistent_hash)
    if settings.simple == "RANDOM":
        return {"lb_policy": _CLUSTER.RANDOM}
    slow_start = _slow_start(settings)
    if settings.simple == "ROUND_ROBIN":
        config = _CLUSTER.RoundRobinLbConfig(slow_start_config=slow_start)
        chosen = {"round_robin_lb_config": config} if slow_start else {}
        return {"lb_policy": _CLUSTER.ROUND_ROBIN, **chosen}
    config = _CLUSTER.LeastRequestLbConfig(slow_start_config=slow_start)
    chosen = {"least_request_lb_config": config} if slow_start else {}
    return {"lb_policy": _CLUSTER.LEAST_REQUEST, **chosen}


def _hashing(settings: ConsistentHash) -> dict[str, Any]:
    if settings.maglev:
        size = settings.maglev.table_size
        return {
            "lb_policy": _CLUSTER.MAGLEV,
            "maglev_lb_config": _CLUSTER.MaglevLbConfig(
                table_size={"value": size} if size else None
            ),
        }
    asked = settings.ring_hash.minimum_ring_size if settings.ring_hash else None
    size = asked or settings.minimum_ring_size or 1024
    return {
        "lb_policy": _CLUSTER.RING_HASH,
        "ring_hash_lb_config": _CLUSTER.RingHashLbConfig(minimum_ring_size={"value": size}),
    }


def _slow_start(settings: LoadBalancerSettings) -> Any:
    """A new endpoint gets its share little by little; None: at once."""
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


def circuit_breakers(policy: Policy) -> Any:
    """Without limits unless they are asked for; what is left of them is shown in the statistics."""
    pool = policy.connection_pool or ConnectionPoolSettings()
    http = pool.http
    limits = {
        "max_connections": policy.tcp.max_connections,
        "max_pending_requests": http and http.http1_max_pending_requests,
        "max_requests": http and http.http2_max_requests,
        "max_retries": http and http.max_retries,
    }
    return circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            circuit_breaker_pb2.CircuitBreakers.Thresholds(
                track_remaining=True,
                **{name: {"value": limit or UNLIMITED} for name, limit in limits.items()},
            )
        ]
    )


def keepalive(policy: Policy) -> Any:
    """TCP keep-alive towards the endpoints; None: the kernel's default, which is off."""
    asked = policy.tcp.tcp_keepalive
    if asked is None:
        return None
    values = {
        "keepalive_probes": asked.probes,
        "keepalive_time": asked.time,
        "keepalive_interval": asked.interval,
    }
    return cluster_pb2.UpstreamConnectionOptions(
        tcp_keepalive=address_pb2.TcpKeepalive(
            **{name: {"value": int(value)} for name, value in values.items() if value}
        )
    )


def outlier_detection(settings: OutlierDetection | None) -> dict[str, Any]:
    """Fields of a cluster that leaves out endpoints which fail; nothing if none is asked for."""
    if settings is None:
        return {}
    fields: dict[str, Any] = {
        "enforcing_success_rate": {"value": 0},
        **_consecutive("5xx", settings.consecutive_5xx_errors),
        **_consecutive(
            "gateway_failure", settings.consecutive_gateway_errors or settings.consecutive_errors
        ),
    }
    if settings.consecutive_errors and settings.consecutive_5xx_errors is None:
        fields |= _consecutive("5xx", 0)
    if settings.interval:
        fields["interval"] = seconds(settings.interval)
    if settings.base_ejection_time:
        fields["base_ejection_time"] = seconds(settings.base_ejection_time)
    if settings.max_ejection_percent:
        fields["max_ejection_percent"] = {"value": settings.max_ejection_percent}
    if settings.split_external_local_origin_errors:
        fields["split_external_local_origin_errors"] = True
        fields |= _consecutive("local_origin_failure", settings.consecutive_local_origin_failures)
    panic = percent_pb2.Percent(value=settings.min_health_percent or 0)
    return {
        "outlier_detection": outlier_detection_pb2.OutlierDetection(**fields),
        "common_lb_config": _CLUSTER.CommonLbConfig(healthy_panic_threshold=panic),
    }


def _consecutive(kind: str, limit: int | None) -> dict[str, Any]:
    """How many failures of a kind in a row take an endpoint out; 0: that kind never does."""
    if limit is None:
        return {}
    enforcing = {"value": 100 if limit else 0}
    return {f"enforcing_consecutive_{kind}": enforcing} | (
        {f"consecutive_{kind}": {"value": limit}} if limit else {}
    )
