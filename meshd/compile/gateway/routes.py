"""The gateway's side of HTTP: hosts of its servers, where VirtualServices bind to them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from meshd.compile.gateway.hosts import bound
from meshd.compile.gateway.ports import BoundServer
from meshd.compile.hosts import specificity
from meshd.compile.http.route_match import Entrance
from meshd.compile.http.routes import table
from meshd.compile.http.virtual_service_routes import http_routes, unconditional_last
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import Route, RouteTable, VirtualHost
from meshd.compile.visibility.routings import Routing
from meshd.compile.visibility.view import View


def gateway_route_table(
    view: View,
    name: str,
    port: int,
    servers: Sequence[BoundServer],
    guard: Authorization | None = None,
) -> RouteTable:
    """Return the routes of servers that share a port, as the gateway's own scope sees the mesh.

    A host that no VirtualService routes is answered 404. ``guard``: who may send what to the
    gateway; None: no policy is about it.
    """
    found: dict[str, _HostRoutes] = {}
    for server in servers:
        entrance = Entrance(view.scope, port, frozenset({server.gateway_name}))
        for each in bound(view, server):
            for host in each.hosts:
                routes = found.setdefault(host, _HostRoutes(server.origin))
                routes.add(each.routing, server, view, entrance)
        if server.server.redirects:
            for _, host in server.hosts:
                found.setdefault(host, _HostRoutes(server.origin)).redirects = True
    hosts = [
        found[host].virtual_host(f"{host}:{port}", host)
        for host in sorted(found, key=lambda host: (specificity(host), host))
    ]
    nothing = VirtualHost(name=f"blackhole:{port}", domains=("*",), counts_attempts=False)
    made = table(name, [*hosts, nothing])
    return msgspec.structs.replace(made, guard=guard)


class _HostRoutes:
    """Collects the VirtualServices' routes for one host of a port."""

    def __init__(self, origin: Origin) -> None:
        self.redirects = False
        self._origin = origin
        self._routes: list[Route] = []
        self._seen: set[tuple[str, str]] = set()

    def add(self, routing: Routing, server: BoundServer, view: View, entrance: Entrance) -> None:
        key = (str(routing.service.key), server.gateway_name)
        if key not in self._seen:
            self._seen.add(key)
            self._routes += http_routes(routing, view, entrance)
        self.redirects = self.redirects or server.server.redirects

    def virtual_host(self, name: str, domain: str) -> VirtualHost:
        return VirtualHost(
            name=name,
            domains=(domain,),
            routes=unconditional_last(self._routes),
            only_tls=self.redirects,
            origin=self._origin,
        )
