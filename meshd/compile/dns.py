# pyright: reportAttributeAccessIssue=false
"""Names of the mesh: one table for all workloads, and a thin way to it from each namespace.

A workload's queries arrive at UDP port 15053 of its namespace and go on to the node's one DNS
listener on the loopback interface, which answers for services and asks the resolvers for the rest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2, udp_listener_config_pb2
from envoy.data.dns.v3 import dns_table_pb2
from envoy.extensions.filters.udp.dns_filter.v3 import dns_filter_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2

from meshd.compile import hosts
from meshd.compile.listeners import in_namespace
from meshd.compile.traffic_policy import Policy, circuit_breakers
from meshd.compile.wellknown import extension, packed, seconds, socket_address
from meshd.model.interception import DNS_PORT
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

DNS_CLUSTER: Final = "dns"
DNS_LISTENER: Final = "dns"
_LOOPBACK: Final = "127.0.0.1"
_TTL: Final = 30.0
"""Seconds. Virtual addresses hardly ever change; those of headless services do."""
_SESSION: Final = 5.0
"""Seconds that a query may wait for its answer: resolvers give up sooner."""


def workload_listener(workload: Workload, options: MeshOptions) -> Any:
    """Takes what the namespace's rules redirect to port 15053."""
    proxy = udp_proxy_pb2.UdpProxyConfig(
        stat_prefix="dns",
        idle_timeout=seconds(_SESSION),
        # Not the matcher, of which Envoy warns each time that it is not finished.
        cluster=DNS_CLUSTER,
    )
    return in_namespace(
        workload,
        "dns",
        DNS_PORT,
        options,
        udp=True,
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.udp_listener.udp_proxy", typed_config=packed(proxy)
            )
        ],
    )


def cluster(options: MeshOptions) -> Any:
    endpoint = endpoint_components_pb2.Endpoint(
        address=socket_address(_LOOPBACK, options.dns_port, udp=True)
    )
    return cluster_pb2.Cluster(
        name=DNS_CLUSTER,
        type=cluster_pb2.Cluster.STATIC,
        circuit_breakers=circuit_breakers(Policy()),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=DNS_CLUSTER,
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    lb_endpoints=[endpoint_components_pb2.LbEndpoint(endpoint=endpoint)]
                )
            ],
        ),
    )


def table_listener(services: Iterable[ServiceRecord], options: MeshOptions) -> Any:
    """The node's DNS listener, with the names of all services."""
    config = dns_filter_pb2.DnsFilterConfig(
        stat_prefix="dns",
        server_config={"inline_dns_table": _table(services, options)},
        client_config=dns_filter_pb2.DnsFilterConfig.ClientContextConfig(
            resolver_timeout=seconds(_SESSION),
            typed_dns_resolver_config=extension(
                "envoy.network.dns_resolver.cares",
                cares_dns_resolver_pb2.CaresDnsResolverConfig(
                    resolvers=[_resolver(text) for text in options.dns_upstreams],
                    dns_resolver_options={"no_default_search_domain": True},
                ),
            ),
            max_pending_lookups=1024,
        ),
    )
    return listener_pb2.Listener(
        name=DNS_LISTENER,
        stat_prefix="dns",
        address=socket_address(_LOOPBACK, options.dns_port, udp=True),
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.udp.dns_filter", typed_config=packed(config)
            )
        ],
    )


def _resolver(text: str) -> Any:
    """``ADDRESS`` or ``ADDRESS:PORT`` (``[ADDRESS]:PORT`` for IPv6)."""
    address, port = text, "53"
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    return socket_address(address, int(port), udp=True)


def _table(services: Iterable[ServiceRecord], options: MeshOptions) -> Any:
    domains: dict[str, tuple[str, ...]] = {}
    for service in sorted(services, key=lambda service: (service.host, service.namespace)):
        addresses = _addresses(service)
        if addresses:
            for name in hosts.forms(service.host, "", options.domain):
                domains.setdefault(name, addresses)
    return dns_table_pb2.DnsTable(
        external_retry_count=2,
        virtual_domains=[
            dns_table_pb2.DnsTable.DnsVirtualDomain(
                name=name,
                endpoint={"address_list": {"address": addresses}},
                answer_ttl=seconds(_TTL),
            )
            for name, addresses in sorted(domains.items())
        ],
    )


def _addresses(service: ServiceRecord) -> tuple[str, ...]:
    """What its name stands for: virtual addresses, or a headless service's endpoints."""
    found = (
        sorted({endpoint.address for endpoint in service.endpoints if endpoint.ready})
        if service.headless
        else service.addresses
    )
    return tuple(address for address in found if _is_address(address))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
