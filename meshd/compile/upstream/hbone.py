"""Decides which endpoints are reached by a tunnel, rather than by connections of their own.

It is for what mutual TLS of the mesh is for, to workloads of other nodes that say that they can be
reached so, and for nothing else. Services have to say that tunnels suit them: Envoy ends a request
once its answer has ended, though a part of that waits to be sent, and whatever the client sends
afterwards. So a server that ends connections itself would have its answers cut.

HTTP goes on as it did: a request whose connection cannot be made is known not to have been sent,
and is sent elsewhere, which nobody could tell of a tunnel's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.api.protocol import Protocol
from meshd.api.tunnels import ANNOTATION
from meshd.compile.names import HBONE
from meshd.compile.plan.tls import TlsMode, TlsPlan
from meshd.compile.plan.upstreams import Http, HttpVersion, Ping, Settings, TunnelEnd, Upstream
from meshd.compile.upstream import short_way
from meshd.compile.upstream.settings import limits
from meshd.compile.upstream.traffic_policy import Policy
from meshd.model.hbone import Tunnel, leads_to
from meshd.model.interception import PROXY_MARK
from meshd.model.service import Endpoint, ServiceRecord
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity

_PING: Final = Ping(interval=10.0, timeout=5.0)
"""New connections are lost in a tunnel whose other end is gone without a word, until that shows."""
_IDLE_TIMEOUT: Final = 300.0
"""Seconds for which a tunnel stays without a connection in it."""


def obstacle(
    service: ServiceRecord, protocol: Protocol, policy: Policy, options: MeshOptions
) -> str:
    """Return why no connection of an upstream is made by a tunnel; empty: those to endpoints that
    can be reached so are."""
    if not options.hbone:
        return "the setting proxy.hbone is off"
    if protocol.is_http or protocol is Protocol.SNIFFED:
        return "what may be HTTP is not tunneled"
    if not service.tunnels:
        return f'{service.host} has no annotation {ANNOTATION}: "true"'
    return short_way.obstacle(policy)


def tunnel_to(place: Endpoint, options: MeshOptions) -> Tunnel | None:
    """Return how an endpoint is reached by a tunnel; None: it is not."""
    if endpoint_obstacle(place, options):
        return None
    return Tunnel(Identity(options.trust_domain, place.namespace, place.service_account).uri)


def endpoint_obstacle(place: Endpoint, options: MeshOptions) -> str:
    """Return why an endpoint is not reached by a tunnel; empty: it is, where its upstream allows
    that."""
    if not (place.mutual_tls and place.service_account):
        return "it does not speak mutual TLS of the mesh"
    if not leads_to(place.port):
        return "the port is one of a proxy's"
    if place.hbone:
        return ""
    if place.node and place.node == options.node:
        return "it runs on this node"
    return "its node does not say that it can be reached so"


def tunnels(options: MeshOptions) -> Iterator[Upstream]:
    """Yield the upstream of the tunnels.

    Who the end of one must be is noted of each connection. A tunnel is shared by the connections of
    one identity from one namespace to one end.
    """
    yield Upstream(
        HBONE,
        TunnelEnd(),
        Settings(
            connect_timeout=options.connect_timeout,
            limits=limits(Policy(), options),
            http=Http(HttpVersion.HTTP2, ping=_PING, idle_timeout=_IDLE_TIMEOUT, tunnels=True),
            mark=PROXY_MARK,
        ),
        TlsPlan(mode=TlsMode.MESH, alpn=("h2",)),
        options.trust_domain,
    )
