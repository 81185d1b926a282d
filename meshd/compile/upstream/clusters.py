"""Clusters: one for each port and subset of a service, passthrough, and black hole.

They are shared by all clients for which the same DestinationRules hold, whatever their identity.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.clusters.common.dns.v3 import dns_pb2
from envoy.extensions.clusters.dns.v3 import dns_cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2

from meshd.api.destination_rule.types import HTTPSettings, LocalityLbSetting
from meshd.api.protocol import Protocol
from meshd.api.traffic import ProxyProtocol
from meshd.compile.envoy import limits
from meshd.compile.envoy.wellknown import from_namespace, over_ads, packed, seconds
from meshd.compile.names import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, OutboundCluster
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.dynamic_dns import dynamic_cluster
from meshd.compile.upstream.endpoints import (
    has_labels,
    lb_endpoint,
    load_assignment,
    near_assignment,
)
from meshd.compile.upstream.tls_plan import TlsPlan, tls_plan
from meshd.compile.upstream.traffic_policy import (
    Policy,
    circuit_breakers,
    common_balancing,
    connects_to_original_destination,
    effective_policy,
    keepalive,
    load_balancing,
    outlier_detection,
)
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions

_CLUSTER: Final = cluster_pb2.Cluster
_HTTP_OPTIONS: Final = http_protocol_options_pb2.HttpProtocolOptions
_HTTP_OPTIONS_KEY: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_DNS_REFRESH: Final = 60.0
"""Seconds, where the answer itself does not say for how long it holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedCluster:
    """A cluster without its transport socket, and the plan of the socket."""

    name: OutboundCluster
    cluster: cluster_pb2.Cluster
    tls: TlsPlan
    proxy_protocol: ProxyProtocol | None = None
    """In which endpoints are told first who the client is."""


def service_clusters(
    service: ServiceRecord, rules: RuleSet, options: MeshOptions
) -> tuple[PlannedCluster, ...]:
    """Return all clusters of one service for the clients for which these rules hold."""
    subsets = ("", *(subset.name for subset in (rules.spec.subsets if rules.spec else ())))
    return tuple(
        _service_cluster(service, port, subset, rules, options)
        for port in service.ports
        if port.protocol is not Protocol.UDP
        for subset in dict.fromkeys(subsets)
    )


def _service_cluster(
    service: ServiceRecord, port: Port, subset: str, rules: RuleSet, options: MeshOptions
) -> PlannedCluster:
    name = OutboundCluster(port.number, service.host, subset, rules.variant, service.apart)
    policy = effective_policy(rules, port.number, subset)
    protocol = _upstream_protocol(port.protocol, policy)
    direct = not rules.at_gateway and connects_to_original_destination(service, port, policy)
    nearness = None if direct else policy.nearness(service, rules.client)
    if direct:
        discovery = _original_destination()
    elif service.resolution is Resolution.DYNAMIC_DNS:
        nearness = None
        discovery = dynamic_cluster(verified=_is_verified(policy))
    elif service.resolution in {Resolution.DNS, Resolution.DNS_ROUND_ROBIN}:
        discovery = _dns(name, service, port, rules, nearness)
        discovery.MergeFrom(load_balancing(policy))
    else:
        discovery = _over_eds(name, nearness)
        discovery.MergeFrom(load_balancing(policy))
    cluster = _CLUSTER(
        name=str(name),
        connect_timeout=seconds(policy.tcp.connect_timeout or options.connect_timeout),
        circuit_breakers=circuit_breakers(policy, options),
        upstream_connection_options=keepalive(policy),
        typed_extension_protocol_options=_http_options(
            protocol, policy, service.host, as_asked=not rules.at_gateway
        ),
        upstream_bind_config=from_namespace(),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        outlier_detection=outlier_detection(policy.outlier_detection),
        common_lb_config=common_balancing(policy, nearness),
    )
    cluster.MergeFrom(discovery)
    tls = tls_plan(
        name,
        service,
        protocol,
        policy.tls,
        options.trust_domain,
        original_destination=direct,
        credential_namespace=rules.namespace,
    )
    return PlannedCluster(name, cluster, tls, policy.proxy_protocol)


def _original_destination() -> cluster_pb2.Cluster:
    return _CLUSTER(type=_CLUSTER.ORIGINAL_DST, lb_policy=_CLUSTER.CLUSTER_PROVIDED)


def _over_eds(name: OutboundCluster, nearness: LocalityLbSetting | None) -> cluster_pb2.Cluster:
    service_name = name.near_endpoints if nearness else name.endpoints
    return _CLUSTER(
        type=_CLUSTER.EDS,
        eds_cluster_config=_CLUSTER.EdsClusterConfig(
            eds_config=over_ads(), service_name=service_name
        ),
    )


def _dns(
    name: OutboundCluster,
    service: ServiceRecord,
    port: Port,
    rules: RuleSet,
    nearness: LocalityLbSetting | None,
) -> cluster_pb2.Cluster:
    """Return fields of a cluster whose endpoints the proxy resolves; a service without any is one
    itself."""
    chosen = rules.subset(name.subset)
    labels = chosen.labels if chosen else {}
    places = [
        endpoint
        for endpoint in service.endpoints_by_port.get(port.number, ())
        if has_labels(endpoint, labels)
    ]
    if not service.endpoints and not service.host.startswith("*"):
        places = [Endpoint(address=service.host, port=port.number, service_port=port.number)]
    # With all addresses in one endpoint there is exactly one, or Envoy refuses the cluster.
    logical = service.resolution is Resolution.DNS_ROUND_ROBIN and len(places) == 1
    if nearness and rules.client and not logical:
        assignment = near_assignment(str(name), places, nearness, rules.client)
    else:
        assignment = load_assignment(str(name), (lb_endpoint(place) for place in places))
    return _CLUSTER(
        cluster_type=_CLUSTER.CustomClusterType(
            name="envoy.clusters.dns", typed_config=packed(_resolver(logical=logical))
        ),
        load_assignment=assignment,
    )


def _resolver(*, logical: bool) -> dns_cluster_pb2.DnsCluster:
    return dns_cluster_pb2.DnsCluster(
        dns_lookup_family=dns_pb2.V4_PREFERRED,
        dns_refresh_rate=seconds(_DNS_REFRESH),
        dns_failure_refresh_rate=dns_cluster_pb2.DnsCluster.RefreshRate(
            base_interval=seconds(1), max_interval=seconds(10)
        ),
        respect_dns_ttl=True,
        all_addresses_in_single_endpoint=logical,
    )


def _upstream_protocol(protocol: Protocol, policy: Policy) -> Protocol:
    http = policy.connection_pool.http if policy.connection_pool else None
    upgrade = http is not None and http.h2_upgrade_policy == "UPGRADE"
    return Protocol.HTTP2 if upgrade and protocol is Protocol.HTTP else protocol


def _http_options(
    protocol: Protocol, policy: Policy, host: str, *, as_asked: bool = True
) -> dict[str, any_pb2.Any]:
    """Return the options of HTTP to the endpoints.

    None: HTTP/1.1 with Envoy's defaults, or no HTTP. ``as_asked``: where nothing is declared, as
    the client does.
    """
    if not protocol.is_http and protocol is not Protocol.SNIFFED:
        return {}
    http = policy.connection_pool.http if policy.connection_pool else None
    streams = http.max_concurrent_streams if http else None
    http1 = protocol_pb2.Http1ProtocolOptions()
    http2 = limits.http2(streams, keep_alive=_pings(http))
    if http is not None and http.use_client_protocol:
        as_asked = True
    elif protocol is not Protocol.SNIFFED:
        as_asked = False
    options = _HTTP_OPTIONS(
        common_http_protocol_options=_common_http_options(policy),
        upstream_http_protocol_options=_names_from_requests(policy, host),
    )
    if as_asked:
        options.use_downstream_protocol_config.http_protocol_options.CopyFrom(http1)
        options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)
    elif protocol not in {Protocol.HTTP, Protocol.SNIFFED}:
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
    elif options.ListFields():
        options.explicit_http_config.http_protocol_options.CopyFrom(http1)
    else:
        return {}
    return {_HTTP_OPTIONS_KEY: packed(options)}


def _pings(http: HTTPSettings | None) -> protocol_pb2.KeepaliveSettings | None:
    asked = http.http2_keep_alive if http else None
    if asked is None or asked.interval is None or asked.timeout is None:
        return None
    return protocol_pb2.KeepaliveSettings(
        interval=seconds(asked.interval), timeout=seconds(asked.timeout)
    )


def _common_http_options(policy: Policy) -> protocol_pb2.HttpProtocolOptions | None:
    http = policy.connection_pool.http if policy.connection_pool else None
    options = protocol_pb2.HttpProtocolOptions()
    if http and http.idle_timeout:
        options.idle_timeout.CopyFrom(seconds(http.idle_timeout))
    if http and http.max_requests_per_connection:
        options.max_requests_per_connection.value = http.max_requests_per_connection
    if policy.tcp.max_connection_duration:
        options.max_connection_duration.CopyFrom(seconds(policy.tcp.max_connection_duration))
    return options if options.ListFields() else None


def _names_from_requests(
    policy: Policy, host: str
) -> protocol_pb2.UpstreamHttpProtocolOptions | None:
    """Return the options for TLS to a wildcard host, where each request's own host is the server
    name."""
    tls = policy.tls
    if tls is None or tls.mode not in {"SIMPLE", "MUTUAL"} or tls.sni or not host.startswith("*"):
        return None
    return protocol_pb2.UpstreamHttpProtocolOptions(
        auto_sni=True, auto_san_validation=_is_verified(policy)
    )


def _is_verified(policy: Policy) -> bool:
    """Return whether a server must show the requested name."""
    tls = policy.tls
    return tls is None or not (tls.insecure_skip_verify or tls.subject_alt_names)


def passthrough_cluster(options: MeshOptions) -> cluster_pb2.Cluster:
    """Return the cluster to the client's own destination."""
    return _CLUSTER(
        name=PASSTHROUGH_CLUSTER,
        type=_CLUSTER.ORIGINAL_DST,
        lb_policy=_CLUSTER.CLUSTER_PROVIDED,
        connect_timeout=seconds(options.connect_timeout),
        circuit_breakers=circuit_breakers(Policy(), options),
        typed_extension_protocol_options=_http_options(
            Protocol.SNIFFED, Policy(), PASSTHROUGH_CLUSTER
        ),
        upstream_bind_config=from_namespace(),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
    )


def black_hole_cluster(options: MeshOptions) -> cluster_pb2.Cluster:
    """Return the cluster to nowhere."""
    return _CLUSTER(
        name=BLACK_HOLE_CLUSTER,
        type=_CLUSTER.STATIC,
        connect_timeout=seconds(options.connect_timeout),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
    )
