"""Validates DestinationRules.
https://istio.io/latest/docs/reference/config/networking/destination-rule/"""

from __future__ import annotations

from meshd.api.checks import (
    Report,
    check_duration,
    check_export_to,
    check_host,
    check_labels,
    check_path,
    check_port,
    check_range,
    check_selector,
    is_address,
)
from meshd.api.decode import Path
from meshd.api.destination_rule.localities import check_failover, check_locality_setting
from meshd.api.destination_rule.types import (
    LARGEST_RING,
    LARGEST_TABLE,
    SHORTEST_LOOK,
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    DestinationRule,
    HTTPCookie,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    TrafficPolicy,
)
from meshd.api.virtual_service.destination_checks import subset_problem

_MAX_TABLE = 5_000_011
"""Envoy's own limit for Maglev tables."""
_LONGEST = 16_384
"""Bytes of the name or the value of a cookie's attribute: Envoy refuses more."""
_LONGEST_SNI = 255
"""Characters: Envoy refuses more, and the host with it."""

_MOST_KEEPALIVE_PROBES = 127
_LONGEST_KEEPALIVE = 32767
"""Seconds. The kernel refuses more of both, and the connection with them: tcp(7)."""


def check_destination_rule(report: Report, found: DestinationRule) -> None:
    spec = found.spec
    check_host(report, ("spec", "host"), spec.host, wildcard=True)
    check_export_to(report, ("spec", "exportTo"), spec.export_to)
    if spec.traffic_policy:
        _check_policy(report, ("spec", "trafficPolicy"), spec.traffic_policy)
    seen: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        path: Path = ("spec", "subsets", index)
        if problem := subset_problem(subset.name):
            report.error((*path, "name"), problem)
        if subset.name in seen:
            report.error((*path, "name"), f'the subset "{subset.name}" is written twice')
        seen.add(subset.name)
        check_labels(report, (*path, "labels"), subset.labels)
        if subset.traffic_policy:
            _check_policy(report, (*path, "trafficPolicy"), subset.traffic_policy)
    if spec.workload_selector:
        path = ("spec", "workloadSelector", "matchLabels")
        check_labels(report, path, spec.workload_selector.match_labels)
        check_selector(report, path[:-1], spec.workload_selector.match_labels)
        if set(spec.export_to) - {".", report.namespace}:
            message = "a rule with a workloadSelector is for its own namespace; write . alone"
            report.error(("spec", "exportTo"), message)


def _check_policy(report: Report, path: Path, policy: TrafficPolicy) -> None:
    if policy == TrafficPolicy():
        report.error(path, "is empty; leave it out")
    if policy.tunnel and policy.proxy_protocol:
        report.error(path, "has tunnel and proxyProtocol; only one of them is possible")
    _check_settings(report, path, policy)
    if tunnel := policy.tunnel:
        if not is_address(tunnel.target_host):
            check_host(report, (*path, "tunnel", "targetHost"), tunnel.target_host)
        check_port(report, (*path, "tunnel", "targetPort"), tunnel.target_port)
    if budget := policy.retry_budget:
        place = (*path, "retryBudget")
        check_range(report, (*place, "percent"), budget.percent, 0, 100, by_proxies=True)
        least = budget.min_retry_concurrency
        check_range(report, (*place, "minRetryConcurrency"), least, 0, 2**32 - 1)
        if budget.budget_interval:
            message = "is ignored: requests in progress count, and no others"
            report.warning((*place, "budgetInterval"), message)
    seen: set[int] = set()
    for index, settings in enumerate(policy.port_level_settings):
        place = (*path, "portLevelSettings", index)
        number = settings.port.number
        if number is None:
            report.error((*place, "port", "number"), "is required")
        elif number in seen:
            message = f"the port {number} is written twice; the first counts"
            report.warning((*place, "port", "number"), message)
        else:
            seen.add(number)
        check_port(report, (*place, "port", "number"), number)
        if settings == PortTrafficPolicy(port=settings.port):
            report.error(place, "is empty; leave it out")
        _check_settings(report, place, settings)


def _check_settings(report: Report, path: Path, policy: TrafficPolicy | PortTrafficPolicy) -> None:
    if policy.load_balancer:
        _check_load_balancer(report, (*path, "loadBalancer"), policy.load_balancer)
        if setting := policy.load_balancer.locality_lb_setting:
            place = (*path, "loadBalancer", "localityLbSetting")
            check_locality_setting(
                report, place, setting, detects_outliers=policy.outlier_detection is not None
            )
        if zones := policy.load_balancer.zone_aware_lb_setting:
            place = (*path, "loadBalancer", "zoneAwareLbSetting")
            check_failover(
                report, place, zones, detects_outliers=policy.outlier_detection is not None
            )
            check_range(report, (*place, "minClusterSize"), zones.min_cluster_size, 1, 2**32 - 1)
            report.warning(place, "is taken for localityLbSetting; minClusterSize is ignored")
    if policy.connection_pool:
        _check_pool(report, (*path, "connectionPool"), policy.connection_pool)
    if policy.outlier_detection:
        _check_outliers(report, (*path, "outlierDetection"), policy.outlier_detection)
    if policy.tls:
        _check_tls(report, (*path, "tls"), policy.tls)


def _check_load_balancer(report: Report, path: Path, settings: LoadBalancerSettings) -> None:
    if settings.simple and settings.consistent_hash:
        report.error(path, "has simple and consistentHash; only one of them is possible")
    if settings.consistent_hash:
        _check_hash(report, (*path, "consistentHash"), settings.consistent_hash)
    check_duration(report, (*path, "warmupDurationSecs"), settings.warmup_duration_secs)
    if settings.warmup:
        check_duration(report, (*path, "warmup", "duration"), settings.warmup.duration)
        share = settings.warmup.minimum_percent
        place = (*path, "warmup", "minimumPercent")
        check_range(report, place, share, 0, 100, by_proxies=True)
        check_range(report, (*path, "warmup", "aggression"), settings.warmup.aggression, 1)


def _check_hash(report: Report, path: Path, settings: ConsistentHash) -> None:
    keys = [
        name
        for name, given in (
            ("httpHeaderName", settings.http_header_name),
            ("httpCookie", settings.http_cookie),
            ("useSourceIp", settings.use_source_ip),
            ("httpQueryParameterName", settings.http_query_parameter_name),
        )
        if given
    ]
    if len(keys) > 1:
        report.error(path, f"has {' and '.join(keys)}; only one of them is possible")
    if not keys:
        known = "httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName"
        report.warning(path, f"has no effect: it has none of {known}")
    if settings.http_cookie:
        if not settings.http_cookie.name:
            report.refused((*path, "httpCookie", "name"), "is required")
        check_range(report, (*path, "httpCookie", "ttl"), settings.http_cookie.ttl, 0)
        _check_attributes(report, (*path, "httpCookie", "attributes"), settings.http_cookie)
    if settings.ring_hash and settings.maglev:
        report.error(path, "has ringHash and maglev; only one of them is possible")
    if settings.ring_hash:
        size = settings.ring_hash.minimum_ring_size
        check_range(report, (*path, "ringHash", "minimumRingSize"), size, 1, 8 * 1024 * 1024)
        _check_size(report, (*path, "ringHash", "minimumRingSize"), size, LARGEST_RING)
    check_range(report, (*path, "minimumRingSize"), settings.minimum_ring_size, 0, 8 * 1024 * 1024)
    _check_size(report, (*path, "minimumRingSize"), settings.minimum_ring_size, LARGEST_RING)
    if settings.minimum_ring_size:
        report.warning((*path, "minimumRingSize"), "is deprecated; write ringHash.minimumRingSize")
        if settings.ring_hash or settings.maglev:
            report.error(path, "has minimumRingSize beside ringHash or maglev; remove it")
    if settings.maglev:
        size = settings.maglev.table_size
        if size is None or size >= _MAX_TABLE or not _is_prime(size):
            message = f"must be a prime number below {_MAX_TABLE}"
            report.refused((*path, "maglev", "tableSize"), message)
        _check_size(report, (*path, "maglev", "tableSize"), size, LARGEST_TABLE)


def _check_size(report: Report, path: Path, size: int | None, largest: int) -> None:
    if size and size > largest:
        message = f"is taken for {largest}: all workloads share the proxies that hold the entries"
        report.warning(path, message)


def _check_attributes(report: Report, path: Path, cookie: HTTPCookie) -> None:
    seen: set[str] = set()
    for index, attribute in enumerate(cookie.attributes):
        place = (*path, index, "name")
        if not attribute.name:
            report.refused(place, "is required")
        if max(len((text or "").encode()) for text in (attribute.name, attribute.value)) > _LONGEST:
            report.refused((*path, index), f"is longer than {_LONGEST} bytes")
        if attribute.name.lower() in seen:
            report.error(place, f'"{attribute.name}" is written twice')
        seen.add(attribute.name.lower())


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def _check_pool(report: Report, path: Path, pool: ConnectionPoolSettings) -> None:
    if not (pool.tcp or pool.http):
        report.error(path, "is empty: it needs one of tcp, http")
    if tcp := pool.tcp:
        place = (*path, "tcp")
        check_range(report, (*place, "maxConnections"), tcp.max_connections, 0, 2**31 - 1)
        check_duration(report, (*place, "connectTimeout"), tcp.connect_timeout)
        check_duration(report, (*place, "idleTimeout"), tcp.idle_timeout, zero=True)
        check_duration(report, (*place, "maxConnectionDuration"), tcp.max_connection_duration)
        if alive := tcp.tcp_keepalive:
            probes = (*place, "tcpKeepalive", "probes")
            check_range(report, probes, alive.probes, 0, _MOST_KEEPALIVE_PROBES)
            for name, value in (("time", alive.time), ("interval", alive.interval)):
                check_duration(report, (*place, "tcpKeepalive", name), value)
                check_range(report, (*place, "tcpKeepalive", name), value, 0, _LONGEST_KEEPALIVE)
    if http := pool.http:
        place = (*path, "http")
        for name, value in (
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
        ):
            check_range(report, (*place, name), value, 0, 2**31 - 1)
        streams = http.max_concurrent_streams
        at = (*place, "maxConcurrentStreams")
        check_range(report, at, streams, 0, 2**31 - 1, by_proxies=True)
        check_duration(report, (*place, "idleTimeout"), http.idle_timeout)
        if alive := http.http2_keep_alive:
            for name, value in (("interval", alive.interval), ("timeout", alive.timeout)):
                check_duration(report, (*place, "http2KeepAlive", name), value, by_proxies=True)
            if alive.interval is None or alive.timeout is None:
                report.error((*place, "http2KeepAlive"), "needs interval and timeout")
        if http.use_client_protocol and http.h2_upgrade_policy == "UPGRADE":
            report.error(place, "has useClientProtocol and h2UpgradePolicy UPGRADE; choose one")


def _check_outliers(report: Report, path: Path, outliers: OutlierDetection) -> None:
    for name, value in (
        ("consecutiveErrors", outliers.consecutive_errors),
        ("consecutiveGatewayErrors", outliers.consecutive_gateway_errors),
        ("consecutive5xxErrors", outliers.consecutive_5xx_errors),
        ("consecutiveLocalOriginFailures", outliers.consecutive_local_origin_failures),
    ):
        check_range(report, (*path, name), value, 0, 2**32 - 1)
    if outliers.consecutive_errors:
        use = "is deprecated; write consecutive5xxErrors or consecutiveGatewayErrors"
        report.warning((*path, "consecutiveErrors"), use)
    for index, status in enumerate(outliers.outlier_detection_http_error_codes):
        check_range(report, (*path, "outlierDetectionHttpErrorCodes", index), status, 100, 599)
    if outliers.outlier_detection_http_error_codes:
        message = "is ignored: answers with a status from 500 count as errors"
        report.warning((*path, "outlierDetectionHttpErrorCodes"), message)
    check_duration(report, (*path, "interval"), outliers.interval)
    if outliers.interval and 0.001 <= outliers.interval < SHORTEST_LOOK:
        report.warning((*path, "interval"), f"is taken for {SHORTEST_LOOK * 1000:.0f}ms")
    check_duration(report, (*path, "baseEjectionTime"), outliers.base_ejection_time)
    for name, share in (
        ("maxEjectionPercent", outliers.max_ejection_percent),
        ("minHealthPercent", outliers.min_health_percent),
    ):
        check_range(report, (*path, name), share, 0, 100, by_proxies=True)
    local = outliers.consecutive_local_origin_failures
    if local and not outliers.split_external_local_origin_errors:
        report.error(
            (*path, "consecutiveLocalOriginFailures"),
            "has no meaning without splitExternalLocalOriginErrors: true",
        )


def _check_skipping(report: Report, path: Path, tls: ClientTLSSettings) -> None:
    """Refuse fields for verification where nothing is verified."""
    verifying = {
        "caCertificates": tls.ca_certificates,
        "subjectAltNames": tls.subject_alt_names,
        # With MUTUAL a Secret may be there for its certificate alone.
        "credentialName": tls.mode == "SIMPLE" and tls.credential_name,
    }
    for name in (name for name, value in verifying.items() if value):
        report.error((*path, "insecureSkipVerify"), f"contradicts {name}; remove one of them")
    if tls.ca_crl:
        report.warning((*path, "caCrl"), "has no effect with insecureSkipVerify")


def _check_tls(report: Report, path: Path, tls: ClientTLSSettings) -> None:
    check_path(report, (*path, "clientCertificate"), tls.client_certificate)
    check_path(report, (*path, "privateKey"), tls.private_key)
    check_path(report, (*path, "caCertificates"), tls.ca_certificates)
    check_path(report, (*path, "caCrl"), tls.ca_crl)
    if len((tls.sni or "").encode()) > _LONGEST_SNI:
        report.refused((*path, "sni"), f"is longer than {_LONGEST_SNI} characters")
    files = {"clientCertificate": tls.client_certificate, "privateKey": tls.private_key}
    given = [name for name, value in files.items() if value]
    if tls.mode == "ISTIO_MUTUAL":
        own = {
            **files,
            "caCertificates": tls.ca_certificates,
            "credentialName": tls.credential_name,
        }
        for name in (name for name, value in own.items() if value):
            report.error((*path, name), "ISTIO_MUTUAL uses the mesh's own certificates; remove it")
    if tls.mode == "MUTUAL" and not tls.credential_name:
        for name in (name for name in files if name not in given):
            report.error((*path, name), "MUTUAL needs it, or a credentialName")
    if tls.credential_name and (given or tls.ca_certificates or tls.ca_crl):
        report.error((*path, "credentialName"), "stands in place of files; remove them or it")
    if tls.insecure_skip_verify and tls.mode in {"SIMPLE", "MUTUAL"}:
        _check_skipping(report, path, tls)
    anchored = tls.ca_certificates or tls.credential_name or tls.insecure_skip_verify
    if tls.mode == "SIMPLE" and not anchored:
        report.warning(path, "without caCertificates the system's certificates are trusted")
