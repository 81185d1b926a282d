"""The client's side of HTTP: one route configuration for each port, as one scope sees it.

Domains are written without ports, and Envoy ignores the port of a request's host
(``ignore_port_in_host_matching``): half the domains, and the same requests match.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import msgspec

from meshd.api.protocol import DEFAULT_HTTP_PORT
from meshd.compile.hosts import forms
from meshd.compile.http.route_actions import to_cluster
from meshd.compile.http.route_match import Entrance
from meshd.compile.http.virtual_service_routes import http_routes
from meshd.compile.names import PASSTHROUGH_CLUSTER, client_routes
from meshd.compile.origins import of_port
from meshd.compile.plan.routes import (
    DirectResponse,
    Forward,
    Route,
    RouteTable,
    Target,
    VirtualHost,
)
from meshd.compile.traffic import virtual_addresses
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions


def http_ports(view: View) -> tuple[int, ...]:
    """Return the ports on which a client of this scope may speak HTTP to some service."""
    return tuple(sorted(port for port, records in view.by_port.items() if any(_on(port, records))))


def route_table(view: View, port: int) -> RouteTable:
    """Return all hosts on a port, and the treatment of requests to others."""
    hosts = [service_host(view, record, port) for record in services(view, port)]
    if port == DEFAULT_HTTP_PORT:
        hosts += [
            virtual_host
            for host in view.mesh_routings.hosts()
            if (virtual_host := unserved_host(view, host, port)) is not None
        ]
    routes = default_routes(view, services(view, port), port)
    rest = anything_else(view.options, routes)
    return table(client_routes(port, view.scope.name), [*hosts, rest])


def table(name: str, hosts: Iterable[VirtualHost]) -> RouteTable:
    """Return a table with distinct domains and names of hosts; the first host that wants a domain
    has it."""
    kept = tuple(
        host if domains == host.domains else msgspec.structs.replace(host, domains=domains)
        for host, domains in distinct(hosts)
    )
    return RouteTable(name, kept)


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def domains(self) -> tuple[str, ...]: ...


_Host = TypeVar("_Host", bound=_Named)


def distinct(hosts: Iterable[_Host]) -> Iterator[tuple[_Host, tuple[str, ...]]]:
    """Yield the hosts of a table, each with the domains that no host before it has."""
    taken: set[str] = set()
    names: set[str] = set()
    for host in hosts:
        before = len(taken)
        if host.name not in names and taken.isdisjoint(host.domains):
            taken.update(host.domains)
            if len(taken) - before == len(host.domains) > 0:
                names.add(host.name)
                yield host, host.domains
                continue
            taken.difference_update(host.domains)
        domains = tuple(domain for domain in dict.fromkeys(host.domains) if domain not in taken)
        if domains and host.name not in names:
            taken.update(domains)
            names.add(host.name)
            yield host, domains


def services(view: View, port: int) -> Iterable[ServiceRecord]:
    """Return the services that clients may speak HTTP to on a port."""
    return _on(port, view.by_port.get(port, ()))


def _on(port: int, records: Iterable[ServiceRecord]) -> Iterable[ServiceRecord]:
    """Yield the services that may speak HTTP on a port."""
    return (record for record in records if port in record.http_ports)


def service_host(view: View, record: ServiceRecord, port: int) -> VirtualHost:
    """Return the host of a service; of the view, it looks at what ``client_hosts`` gives it."""
    routes = _routes(view, record.host, port) or [_default_route(view, record, port)]
    return VirtualHost(
        name=f"{record.host}:{port}",
        domains=_of_service(view, record),
        routes=tuple(routes),
        origin=of_port(record, port),
    )


def unserved_host(view: View, host: str, port: int) -> VirtualHost | None:
    """Return a host that a VirtualService routes though it is no service; None: it is one, or no
    route holds."""
    routes = [] if host in view.services else _routes(view, host, port)
    if not routes:
        return None
    return VirtualHost(
        name=f"{host}:{port}",
        domains=domains(view, host),
        routes=tuple(routes),
        origin=routes[0].origin,
    )


def domains(view: View, host: str) -> tuple[str, ...]:
    """Return the names and addresses by which clients ask for a host."""
    record = view.services.get(host)
    if record is None:
        return tuple(forms(host, view.scope.namespace, view.options.domain))
    return _of_service(view, record)


def _of_service(view: View, record: ServiceRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys(domain.lower() for domain in _domains(view, record)))


def _routes(view: View, host: str, port: int) -> list[Route]:
    """Return the routes of the first VirtualService with HTTP routes for the host on this port."""
    entrance = Entrance(view.scope, port)
    record = view.services.get(host)
    for routing in view.mesh_routings.for_host(host):
        if routes := http_routes(routing.at_port(record, port), view, entrance):
            return routes
    return []


def _default_route(view: View, record: ServiceRecord, port: int) -> Route:
    policy = effective_policy(view.rules(record.host), port)
    cluster = view.cluster(record.host, port)
    return Route(
        name="default",
        action=to_cluster(cluster, policy.consistent_hash),
        looks_up=view.is_looked_up(cluster),
    )


def _domains(view: View, record: ServiceRecord) -> list[str]:
    domain = view.options.domain
    names = list(forms(record.host, view.scope.namespace, domain))
    if record.headless and not record.host.startswith("*"):
        names += [f"*.{name}" for name in names]  # each endpoint by its own name
    return [*names, *(host for host in map(_address_host, record.addresses) if host)]


@functools.lru_cache(maxsize=65536)
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


def default_routes(view: View, records: Iterable[ServiceRecord], port: int) -> dict[str, Route]:
    """Return services' routes by their own addresses, where the mesh gives addresses, and those of
    addresses that are closed."""
    options = view.options
    if options.outbound_policy == "REGISTRY_ONLY":
        return {}
    of_services = {
        socket: _default_route(view, record, port)
        for record in (records if options.service_cidr else ())
        for socket in virtual_addresses.sockets(record, port, options)
    }
    return of_services | virtual_addresses.closed_routes(port, options)


def anything_else(options: MeshOptions, by_address: Mapping[str, Route]) -> VirtualHost:
    """Return the host for names outside the registry; a service's own address is that service's to
    answer."""
    if options.outbound_policy == "REGISTRY_ONLY":
        route = Route(name="block_all", action=DirectResponse(502))
        return VirtualHost(name="block_all", domains=("*",), routes=(route,), counts_attempts=False)
    action = Forward(targets=(Target(PASSTHROUGH_CLUSTER),), unknown_is_unavailable=False)
    route = Route(name="allow_any", action=action, repeats_idempotent=False)
    addresses = None
    if options.service_cidr or by_address:
        addresses = virtual_addresses.routed(by_address, options.service_cidr)
    return VirtualHost(name="allow_any", domains=("*",), routes=(route,), addresses=addresses)
