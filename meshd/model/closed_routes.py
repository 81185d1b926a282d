"""VirtualServices that are not in force, but whose hosts must not be reached without them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshd.api.base import ObjectMeta
from meshd.api.checks import host_problem, is_address
from meshd.api.virtual_service.types import (
    Destination,
    HTTPRoute,
    HTTPRouteDestination,
    RouteDestination,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
    VirtualService,
    VirtualServiceSpec,
)

_NOWHERE: Final = Destination("~closed")
"""A host that no service can have, so that its cluster does not exist: requests are answered 503,
connections are closed."""
_HTTP: Final = HTTPRoute(route=(HTTPRouteDestination(_NOWHERE),))
_CONNECTIONS: Final = (RouteDestination(_NOWHERE),)


class ClosedRoutes(VirtualService, frozen=True):
    """Routes that cannot be used.

    They are looked up like any other routes. Without them, the traffic of their hosts would go
    where nobody has sent it: past an egress gateway, for example.
    """

    @classmethod
    def of(cls, routes: VirtualService, *, cut: bool = False) -> ClosedRoutes:
        """Return routes that are closed for the clients and the hosts of other ones.

        Protocols that these do not route are left alone, unless they route nothing. ``cut``: a part
        of them could not be read, so that they may have routed anything.
        """
        meta, spec = routes.metadata, routes.spec
        hosts = _names(spec.hosts)
        any_protocol = cut or not (spec.http or spec.tls or spec.tcp)
        names = _names(
            name for route in spec.tls for match in route.match for name in match.sni_hosts
        )
        if cut:
            names = tuple(dict.fromkeys((*hosts, *names)))
        tls = TLSRoute((TLSMatchAttributes(names or hosts),), _CONNECTIONS)
        return cls(
            metadata=ObjectMeta(
                name=meta.name,
                namespace=meta.namespace,
                creation_timestamp=meta.creation_timestamp,
            ),
            spec=VirtualServiceSpec(
                hosts=hosts,
                gateways=spec.gateways,
                export_to=spec.export_to,
                http=(_HTTP,) if spec.http or any_protocol else (),
                tls=(tls,) if hosts and (spec.tls or any_protocol) else (),
                tcp=(TCPRoute(route=_CONNECTIONS),) if hosts and (spec.tcp or any_protocol) else (),
            ),
        )


def closed_route(route: HTTPRoute) -> HTTPRoute:
    """Return a route whose requests are answered 503."""
    return HTTPRoute(match=route.match, route=_HTTP.route)


def is_closed(host: str) -> bool:
    """Return whether a full host name is the one that closed routes lead to."""
    return host.partition(".")[0] == _NOWHERE.host


def _names(written: Iterable[str]) -> tuple[str, ...]:
    """Return each host once that is one."""
    return tuple(
        name
        for name in dict.fromkeys(written)
        if is_address(name) or not host_problem(name, wildcard=True)
    )
