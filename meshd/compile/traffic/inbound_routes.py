"""The server's side of HTTP: every request goes on to the application, with the caller's name.

``x-forwarded-client-cert`` says who called. Whatever the caller wrote there is replaced, since any
workload of the mesh can open a connection of its own. A gateway may say who its client was: its
proxy has written that, and the gateway's own element comes after it. Gateways are known by their
identities, and these are in routes, which come and go without a connection being closed.

A client's proxy does not repeat a request that an application may have seen. So a request that may
be made twice is repeated here when the application's connection ends before the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshd.compile.names import InboundCluster
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.inbound_routes import InboundRoute, InboundRoutes
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.upstream.fixed import inbound_name
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity

_REPEATS: Final = 2
Guards = Mapping[str, Authorization]
"""Who may send requests to a workload, by uid, of workloads that policies are about."""
NOBODY: Final[Guards] = {}
"""No policy is about any workload."""


def inbound_routes(
    served: Mapping[str, Ports],
    accounts: Iterable[tuple[str, str]],
    options: MeshOptions,
    guards: Guards = NOBODY,
) -> Iterator[InboundRoutes]:
    """Yield the tables. ``accounts``: those of gateways; ``guards``: who may send what, by uid."""
    gateways = tuple(Identity(options.trust_domain, *account).uri for account in accounts)
    clusters = {
        inbound_name(port, spoken)
        for ports in served.values()
        for port, spoken in ports.items()
        if spoken is not Spoken.OPAQUE
    }
    for cluster in sorted(clusters, key=str):
        judged = _judged(cluster, served, guards)
        yield certified_routes(cluster, gateways, judged, short_way=options.short_way)
        yield plain_routes(cluster, judged)


class Judged(msgspec.Struct, frozen=True):
    """What a table says of workloads that policies are about."""

    guards: Guards = NOBODY
    misdirected: tuple[str, ...] = ()


_UNJUDGED: Final = Judged()


def _judged(cluster: InboundCluster, served: Mapping[str, Ports], guards: Guards) -> Judged:
    """Return what a table says of all workloads that policies are about.

    A connection stays with its table when the port's protocol changes, or when no service sends to
    the workload any more, as long as others have the table. Requests in it are judged all the same.
    """
    found: dict[str, Authorization] = {}
    misdirected: list[str] = []
    for uid, rules in guards.items():
        if served.get(uid, {}).get(cluster.port, Spoken.OPAQUE) is Spoken.OPAQUE:
            misdirected.append(uid)
        else:
            found[uid] = rules
    return Judged(found, tuple(misdirected))


def plain_name(cluster: InboundCluster) -> str:
    """Return the name of the table for callers without a certificate."""
    return f"plain|{cluster}"


def plain_routes(cluster: InboundCluster, judged: Judged = _UNJUDGED) -> InboundRoutes:
    """Return routes for callers without a certificate."""
    route = InboundRoute(name="default")
    return _table(plain_name(cluster), cluster, (route,), judged)


def certified_routes(
    cluster: InboundCluster,
    gateways: tuple[str, ...],
    judged: Judged = _UNJUDGED,
    *,
    short_way: bool = False,
) -> InboundRoutes:
    """Return routes for callers with a certificate of the mesh; ``gateways``: their identities.

    ``short_way``: requests may come that say already who makes them.
    """
    name, others = str(cluster), InboundRoute(name="default", certificate="replace")
    if not gateways:
        return _table(name, cluster, (others,), judged)
    of_gateways = InboundRoute(name="gateway", callers=gateways, certificate="append")
    named = InboundRoute(name="default", names_caller=True, certificate="replace")
    routes = (named, of_gateways, others) if short_way else (of_gateways, others)
    return _table(name, cluster, routes, judged)


def _table(
    name: str, cluster: InboundCluster, routes: tuple[InboundRoute, ...], judged: Judged
) -> InboundRoutes:
    return InboundRoutes(name, cluster, routes, _REPEATS, judged.guards, judged.misdirected)
