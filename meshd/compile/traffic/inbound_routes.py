"""The server's side of HTTP: every request goes on to the application, with the caller's name.

``x-forwarded-client-cert`` says who called. Whatever the caller wrote there is replaced, since any
workload of the mesh can open a connection of its own. A gateway may say who its client was: its
proxy has written that, and the gateway's own element comes after it. Gateways are known by their
identities, and these are in routes, which come and go without a connection being closed.

A client's proxy does not repeat a request that an application may have seen. So a request that may
be made twice is repeated here when the application's connection ends before the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from meshd.compile.names import InboundCluster
from meshd.compile.plan.inbound_routes import InboundRoute, InboundRoutes
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.upstream.fixed import inbound_name
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity

_REPEATS: Final = 2


def inbound_routes(
    served: Iterable[Ports], accounts: Iterable[tuple[str, str]], options: MeshOptions
) -> Iterator[InboundRoutes]:
    """Yield the tables for requests that come over mutual TLS. ``accounts``: those of gateways."""
    gateways = tuple(Identity(options.trust_domain, *account).uri for account in accounts)
    clusters = {
        inbound_name(port, spoken)
        for ports in served
        for port, spoken in ports.items()
        if spoken is not Spoken.OPAQUE
    }
    for cluster in sorted(clusters, key=str):
        yield certified_routes(cluster, gateways)


def plain_routes(cluster: InboundCluster) -> InboundRoutes:
    """Return routes for callers without a certificate."""
    return InboundRoutes(cluster, (InboundRoute(name="default"),), _REPEATS)


def certified_routes(cluster: InboundCluster, gateways: tuple[str, ...]) -> InboundRoutes:
    """Return routes for callers with a certificate of the mesh; ``gateways``: their identities."""
    others = InboundRoute(name="default", certificate="replace")
    if not gateways:
        return InboundRoutes(cluster, (others,), _REPEATS)
    of_gateways = InboundRoute(name="gateway", callers=gateways, certificate="append")
    return InboundRoutes(cluster, (of_gateways, others), _REPEATS)
