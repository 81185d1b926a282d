"""DestinationRule of networking.istio.io: how to talk to a service, and its subsets.

After https://istio.io/latest/docs/reference/config/networking/destination-rule/.
"""

from __future__ import annotations

import functools
from typing import ClassVar, Final, Literal

import msgspec

from meshd.api.base import (
    NETWORKING_VERSIONS,
    Duration,
    Object,
    PortSelector,
    Strict,
    WorkloadSelector,
)


class CookieAttribute(Strict, frozen=True):
    name: str
    value: str | None = None


class HTTPCookie(Strict, frozen=True):
    name: str
    path: str | None = None
    ttl: Duration | None = None
    attributes: tuple[CookieAttribute, ...] = ()


LARGEST_RING: Final = 8192
"""Entries of a ring: enough for as many endpoints as a ServiceEntry has. A ring of 8 Mi, which
Envoy allows, takes 400 MB and stops a proxy, which all workloads share, for 8 s."""
SHORTEST_LOOK: Final = 0.1
"""Seconds between looks at all endpoints for those that fail: each costs time of the proxies' one
thread that nothing else is to wait for."""
LARGEST_TABLE: Final = 65_537
"""Entries of a Maglev table: as many as it has by default."""


class RingHash(Strict, frozen=True):
    minimum_ring_size: int | None = None


class MagLev(Strict, frozen=True):
    table_size: int | None = None


class ConsistentHash(Strict, frozen=True):
    http_header_name: str | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: int | None = None


class Distribute(Strict, frozen=True):
    """The shares, in 100, of traffic from one locality for each of others."""

    from_: str = msgspec.field(default="", name="from")
    to: dict[str, int] = {}


class Failover(Strict, frozen=True):
    """The region that takes over for another."""

    from_: str = msgspec.field(default="", name="from")
    to: str = ""


class LocalityLbSetting(Strict, frozen=True):
    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    enabled: bool | None = None


class ZoneAwareLbSetting(Strict, frozen=True):
    """A preference for endpoints of the client's zone, as far as they can carry its share of the
    load."""

    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: int | None = None


class WarmupConfiguration(Strict, frozen=True):
    duration: Duration
    minimum_percent: float | None = None
    aggression: float | None = None


class LoadBalancerSettings(Strict, frozen=True):
    simple: (
        Literal[
            "UNSPECIFIED", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN"
        ]
        | None
    ) = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    warmup_duration_secs: Duration | None = None
    warmup: WarmupConfiguration | None = None

    @property
    def nearness(self) -> LocalityLbSetting | None:
        """Return the preference for nearby endpoints, in whichever of the two ways it is
        written."""
        zones = self.zone_aware_lb_setting
        if self.locality_lb_setting is not None or zones is None:
            return self.locality_lb_setting
        return LocalityLbSetting(
            enabled=zones.enabled,
            failover=zones.failover,
            failover_priority=zones.failover_priority,
        )


class TcpKeepalive(Strict, frozen=True):
    probes: int | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TCPSettings(Strict, frozen=True):
    max_connections: int | None = None
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: Duration | None = None


class HTTP2KeepAlive(Strict, frozen=True):
    """PING frames on connections to endpoints."""

    interval: Duration | None = None
    timeout: Duration | None = None


class HTTPSettings(Strict, frozen=True):
    http1_max_pending_requests: int | None = None
    http2_max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    use_client_protocol: bool | None = None
    max_concurrent_streams: int | None = None
    http2_keep_alive: HTTP2KeepAlive | None = None


class ConnectionPoolSettings(Strict, frozen=True):
    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None


class OutlierDetection(Strict, frozen=True):
    consecutive_errors: int | None = None  # deprecated by the API, still in old tutorials
    consecutive_gateway_errors: int | None = None
    consecutive_5xx_errors: int | None = msgspec.field(default=None, name="consecutive5xxErrors")
    consecutive_local_origin_failures: int | None = None
    split_external_local_origin_errors: bool | None = None
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None
    outlier_detection_http_error_codes: tuple[int, ...] = ()


class ClientTLSSettings(Strict, frozen=True):
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None
    ca_crl: str | None = None
    credential_name: str | None = None
    subject_alt_names: tuple[str, ...] = ()
    sni: str | None = None
    insecure_skip_verify: bool | None = None


class TunnelSettings(Strict, frozen=True):
    """TCP inside HTTP, to a proxy that goes on from there."""

    target_host: str
    target_port: int
    protocol: Literal["CONNECT", "POST"] = "CONNECT"


class ProxyProtocol(Strict, frozen=True):
    version: Literal["V1", "V2"] = "V1"


class RetryBudget(Strict, frozen=True):
    """The limit of concurrent retries, as a share of concurrent requests."""

    percent: float | None = None
    min_retry_concurrency: int | None = None
    budget_interval: Duration | None = None


class PortTrafficPolicy(Strict, frozen=True):
    port: PortSelector
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None


class TrafficPolicy(Strict, frozen=True, dict=True):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    @functools.cached_property
    def by_port(self) -> dict[int | None, PortTrafficPolicy]:
        """Settings of ports by number; of several for one port, the first."""
        return {one.port.number: one for one in reversed(self.port_level_settings)}


class Subset(Strict, frozen=True):
    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Strict, frozen=True):
    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None


class DestinationRule(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "DestinationRule"
    PLURALS: ClassVar[tuple[str, ...]] = ("destinationrules", "destinationrule", "dr")

    spec: DestinationRuleSpec
