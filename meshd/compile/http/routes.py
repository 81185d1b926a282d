"""The client's side of HTTP: one route configuration for each port, as one scope sees it.

Domains are written without ports, and Envoy ignores the port of a request's host
(``ignore_port_in_host_matching``): half the domains, and the same requests match.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from envoy.config.route.v3 import route_components_pb2, route_pb2

from meshd.api.protocol import Protocol
from meshd.compile.envoy.wellknown import seconds
from meshd.compile.hosts import forms
from meshd.compile.http.idempotence import NOT_SENT, never
from meshd.compile.http.route_actions import to_cluster
from meshd.compile.http.route_match import Entrance, route_match
from meshd.compile.http.virtual_service_routes import http_routes
from meshd.compile.names import PASSTHROUGH_CLUSTER, client_routes
from meshd.compile.traffic import virtual_addresses
from meshd.compile.upstream.dynamic_dns import looked_up
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.compile.visibility import View
from meshd.model.service import ServiceRecord

MAX_DIRECT_RESPONSE: Final = 1024 * 1024
"""Bytes of a direct response's body."""
DEFAULT_HTTP_PORT: Final = 80
"""Where hosts are routed that only a VirtualService knows."""

_VirtualHost = route_components_pb2.VirtualHost


def http_ports(view: View) -> tuple[int, ...]:
    """Return the ports on which a client of this scope may speak HTTP to some service."""
    return tuple(sorted(port for port, records in view.by_port.items() if any(_on(port, records))))


def route_configuration(view: View, port: int) -> route_pb2.RouteConfiguration:
    """Return all hosts on a port, and the treatment of requests to others."""
    hosts = [_service_host(view, record, port) for record in _on(port, view.by_port.get(port, ()))]
    if port == DEFAULT_HTTP_PORT:
        hosts += [
            virtual_host
            for host in view.mesh_routings.hosts()
            if (virtual_host := _unserved_host(view, host, port)) is not None
        ]
    return configuration(client_routes(port, view.scope.name), [*hosts, _anything_else(view, port)])


def configuration(name: str, virtual_hosts: Iterable[_VirtualHost]) -> route_pb2.RouteConfiguration:
    """Return a route configuration of these hosts; the first host that wants a domain has it."""
    return route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=_without_repeated_domains(virtual_hosts),
        # A destination that is not there fails its own requests only.
        validate_clusters={"value": False},
        ignore_port_in_host_matching=True,
        response_headers_to_remove=[NOT_SENT],
        max_direct_response_body_size_bytes={"value": MAX_DIRECT_RESPONSE},
    )


def _without_repeated_domains(virtual_hosts: Iterable[_VirtualHost]) -> list[_VirtualHost]:
    """Return hosts with distinct domains and names: Envoy refuses a configuration with repeated
    ones."""
    taken: set[str] = set()
    names: set[str] = set()
    kept: list[_VirtualHost] = []
    for virtual_host in virtual_hosts:
        domains = [domain for domain in dict.fromkeys(virtual_host.domains) if domain not in taken]
        if domains and virtual_host.name not in names:
            taken.update(domains)
            names.add(virtual_host.name)
            del virtual_host.domains[:]
            virtual_host.domains.extend(domains)
            kept.append(virtual_host)
    return kept


def _on(port: int, records: Iterable[ServiceRecord]) -> Iterable[ServiceRecord]:
    """Yield the services that may speak HTTP on a port."""
    return (
        record
        for record in records
        if any(
            protocol.is_http or protocol is Protocol.SNIFFED
            for protocol in record.protocols.get(port, ())
        )
    )


def _service_host(view: View, record: ServiceRecord, port: int) -> route_components_pb2.VirtualHost:
    routes = _routes(view, record.host, port) or [_default_route(view, record, port)]
    return _VirtualHost(
        name=f"{record.host}:{port}",
        domains=[domain.lower() for domain in _domains(view, record)],
        routes=routes,
        include_request_attempt_count=True,
    )


def _unserved_host(view: View, host: str, port: int) -> route_components_pb2.VirtualHost | None:
    """Return a host that a VirtualService routes though it is no service; None: it is one, or no
    route holds."""
    routes = [] if host in view.services else _routes(view, host, port)
    if not routes:
        return None
    return _VirtualHost(
        name=f"{host}:{port}",
        domains=forms(host, view.scope.namespace, view.options.domain),
        routes=routes,
        include_request_attempt_count=True,
    )


def _routes(view: View, host: str, port: int) -> list[route_components_pb2.Route]:
    """Return the routes of the first VirtualService with HTTP routes for the host on this port."""
    entrance = Entrance(view.scope, port)
    for routing in view.mesh_routings.for_host(host):
        if routes := http_routes(routing, view, entrance):
            return routes
    return []


def _default_route(view: View, record: ServiceRecord, port: int) -> route_components_pb2.Route:
    policy = effective_policy(view.rules(record.host), port)
    cluster = view.cluster(record.host, port)
    return route_components_pb2.Route(
        name="default",
        match=route_match(None),
        route=to_cluster(cluster, policy.consistent_hash),
        typed_per_filter_config=looked_up() if view.is_looked_up(cluster) else {},
    )


def _domains(view: View, record: ServiceRecord) -> list[str]:
    domain = view.options.domain
    names = list(forms(record.host, view.scope.namespace, domain))
    if record.headless and not record.host.startswith("*"):
        names += [f"*.{name}" for name in names]  # each endpoint by its own name
    return [*names, *(host for host in map(_address_host, record.addresses) if host)]


def _address_host(address: str) -> str:
    """Return an address as in a URL; empty for a network of several addresses."""
    try:
        network = ipaddress.ip_network(address)
    except ValueError:
        return ""
    if network.num_addresses != 1:
        return ""
    single = network.network_address
    return f"[{single}]" if single.version == 6 else str(single)


def _anything_else(view: View, port: int) -> route_components_pb2.VirtualHost:
    """Return the host for names outside the registry; a service's own address is that service's to
    answer."""
    match = route_match(None)
    if view.options.outbound_policy == "REGISTRY_ONLY":
        refusal = route_components_pb2.DirectResponseAction(status=502)
        route = route_components_pb2.Route(name="block_all", match=match, direct_response=refusal)
        return _VirtualHost(name="block_all", domains=["*"], routes=[route])
    action = route_components_pb2.RouteAction(cluster=PASSTHROUGH_CLUSTER, timeout=seconds(0))
    route = route_components_pb2.Route(
        name="allow_any", match=match, route=action, typed_per_filter_config=never()
    )
    by_service = {
        socket: _default_route(view, record, port)
        for record in _on(port, view.by_port.get(port, ()))
        for socket in virtual_addresses.sockets(record, port, view.options)
    }
    host = virtual_addresses.routed(by_service, route, view.options)
    host.name = "allow_any"
    host.domains.append("*")
    host.include_request_attempt_count = True
    return host
