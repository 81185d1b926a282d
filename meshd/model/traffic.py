"""networking.istio.io: what traffic goes where.

Field by field after https://istio.io/latest/docs/reference/config/networking/. A oneof is a group
of optional fields of which at most one is set; validation checks that, not the types.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from meshd.model.base import Duration, Object, Strict

_VERSIONS = ("v1alpha3", "v1beta1", "v1")


class StringMatch(Strict, frozen=True):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class PortSelector(Strict, frozen=True):
    number: int | None = None


class Destination(Strict, frozen=True):
    host: str
    subset: str | None = None
    port: PortSelector | None = None


class HeaderOperations(Strict, frozen=True):
    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(Strict, frozen=True):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPMatchRequest(Strict, frozen=True):
    name: str | None = None
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    port: int | None = None
    source_labels: dict[str, str] = {}
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()
    ignore_uri_case: bool = False
    stat_prefix: str | None = None


class HTTPRouteDestination(Strict, frozen=True):
    destination: Destination
    weight: int | None = None
    headers: Headers | None = None


class HTTPRedirect(Strict, frozen=True):
    uri: str | None = None
    authority: str | None = None
    port: int | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: str | None = None
    redirect_code: int | None = None


class HTTPBody(Strict, frozen=True):
    string: str | None = None
    bytes: str | None = None


class HTTPDirectResponse(Strict, frozen=True):
    status: int
    body: HTTPBody | None = None


class RegexRewrite(Strict, frozen=True):
    match: str
    rewrite: str


class HTTPRewrite(Strict, frozen=True):
    uri: str | None = None
    authority: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRetry(Strict, frozen=True):
    attempts: int
    per_try_timeout: Duration | None = None
    retry_on: str | None = None
    retry_remote_localities: bool | None = None


class Percent(Strict, frozen=True):
    value: float = 0.0


class FaultDelay(Strict, frozen=True):
    fixed_delay: Duration | None = None
    percent: int | None = None  # deprecated by the API, still in old tutorials
    percentage: Percent | None = None


class FaultAbort(Strict, frozen=True):
    http_status: int | None = None
    grpc_status: str | None = None
    percent: int | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(Strict, frozen=True):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HTTPMirrorPolicy(Strict, frozen=True):
    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(Strict, frozen=True):
    allow_origins: tuple[StringMatch, ...] = ()
    allow_origin: tuple[str, ...] = ()  # deprecated by the API
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Duration | None = None
    allow_credentials: bool | None = None


class HTTPRoute(Strict, frozen=True):
    name: str | None = None
    match: tuple[HTTPMatchRequest, ...] = ()
    route: tuple[HTTPRouteDestination, ...] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    rewrite: HTTPRewrite | None = None
    timeout: Duration | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirror_percentage: Percent | None = None
    mirror_percent: int | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class RouteDestination(Strict, frozen=True):
    destination: Destination
    weight: int | None = None


class L4MatchAttributes(Strict, frozen=True):
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: dict[str, str] = {}
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()


class TCPRoute(Strict, frozen=True):
    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class TLSMatchAttributes(Strict, frozen=True):
    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: dict[str, str] = {}
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()


class TLSRoute(Strict, frozen=True):
    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(Strict, frozen=True):
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    export_to: tuple[str, ...] = ()


class VirtualService(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = _VERSIONS
    KIND: ClassVar[str] = "VirtualService"
    PLURALS: ClassVar[tuple[str, ...]] = ("virtualservices", "virtualservice", "vs")

    spec: VirtualServiceSpec


class HTTPCookie(Strict, frozen=True):
    name: str
    path: str | None = None
    ttl: Duration | None = None


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


class LocalityLbSetting(Strict, frozen=True):
    enabled: bool | None = None


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
    warmup_duration_secs: Duration | None = None
    warmup: WarmupConfiguration | None = None


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


class HTTPSettings(Strict, frozen=True):
    http1_max_pending_requests: int | None = None
    http2_max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    use_client_protocol: bool | None = None
    max_concurrent_streams: int | None = None


class ConnectionPoolSettings(Strict, frozen=True):
    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None


class OutlierDetection(Strict, frozen=True):
    consecutive_errors: int | None = None  # deprecated by the API, still in old tutorials
    consecutive_gateway_errors: int | None = None
    consecutive_5xx_errors: int | None = None
    consecutive_local_origin_failures: int | None = None
    split_external_local_origin_errors: bool | None = None
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None


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


class PortTrafficPolicy(Strict, frozen=True):
    port: PortSelector
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None


class TrafficPolicy(Strict, frozen=True):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()


class Subset(Strict, frozen=True):
    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class WorkloadSelector(Strict, frozen=True):
    match_labels: dict[str, str] = {}


class DestinationRuleSpec(Strict, frozen=True):
    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None


class DestinationRule(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = _VERSIONS
    KIND: ClassVar[str] = "DestinationRule"
    PLURALS: ClassVar[tuple[str, ...]] = ("destinationrules", "destinationrule", "dr")

    spec: DestinationRuleSpec


class GatewayPort(Strict, frozen=True):
    number: int
    protocol: str
    name: str
    target_port: int | None = None


class ServerTLSSettings(Strict, frozen=True):
    https_redirect: bool = False
    mode: Literal[
        "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
    ] = "PASSTHROUGH"
    server_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None
    credential_name: str | None = None
    subject_alt_names: tuple[str, ...] = ()
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    cipher_suites: tuple[str, ...] = ()


class Server(Strict, frozen=True):
    port: GatewayPort
    hosts: tuple[str, ...]
    bind: str | None = None
    tls: ServerTLSSettings | None = None
    name: str | None = None


class GatewaySpec(Strict, frozen=True):
    servers: tuple[Server, ...]
    selector: dict[str, str] = {}


class Gateway(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = _VERSIONS
    KIND: ClassVar[str] = "Gateway"
    PLURALS: ClassVar[tuple[str, ...]] = ("gateways", "gateway", "gw")

    spec: GatewaySpec


class ServicePortEntry(Strict, frozen=True):
    number: int
    name: str
    protocol: str | None = None
    target_port: int | None = None


class WorkloadEntrySpec(Strict, frozen=True):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: str | None = None
    locality: str | None = None
    weight: int | None = None
    service_account: str | None = None


class ServiceEntrySpec(Strict, frozen=True):
    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePortEntry, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"] = "NONE"
    endpoints: tuple[WorkloadEntrySpec, ...] = ()
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


class ServiceEntry(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = _VERSIONS
    KIND: ClassVar[str] = "ServiceEntry"
    PLURALS: ClassVar[tuple[str, ...]] = ("serviceentries", "serviceentry", "se")

    spec: ServiceEntrySpec


class WorkloadEntry(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = _VERSIONS
    KIND: ClassVar[str] = "WorkloadEntry"
    PLURALS: ClassVar[tuple[str, ...]] = ("workloadentries", "workloadentry", "we")

    spec: WorkloadEntrySpec
