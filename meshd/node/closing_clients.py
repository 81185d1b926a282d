"""Closes at clients what lost configuration closes, and keeps clients of this node from being
refused by what closes at its workloads, before either is compiled. Pure.

Services that are closed, and those of which a DestinationRule is, lead nowhere at once. Closed
routes, and a closed rule that was none before, wait for the compilation: for whom they are closed
follows from what every client sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from meshd.api.base import Object
from meshd.compile.shortcuts.reached import Changed, Reached, closed_passthrough
from meshd.compile.traffic.inbound_routes import NOBODY, Guards
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_services import ClosedEntry, ClosedService
from meshd.node.packing import packed
from meshd.registry.services import host_of
from meshd.xds.resources import Resource


def for_clients(
    reached: Reached | None,
    changed: Changed,
    judging: Guards = NOBODY,
    closed: Collection[Object] = (),
    *,
    is_lost: bool,
) -> tuple[Resource, ...]:
    """Return the clusters and endpoints that replace those of what was compiled.

    ``reached``: None if nothing was. ``changed``: the workloads of this node that have become
    stricter; ``judging``: the rules of those about which AuthorizationPolicies became stricter.
    ``closed``: closed objects. ``is_lost``: configuration has been lost since.
    """
    if reached is None:
        return ()
    way_out = closed_passthrough(reached.snapshot.options) if is_lost else None
    nowhere = reached.without(
        set(_services(closed, reached.snapshot.options.domain)),
        {one.key for one in closed if isinstance(one, ClosedRule)},
    )
    made = (*reached.under(changed, judging), *nowhere, way_out)
    return tuple(map(packed, filter(None, made)))


def _services(closed: Iterable[Object], domain: str) -> Iterator[tuple[str, str]]:
    """Yield the hosts of services that are closed, with their namespaces."""
    for one in closed:
        if isinstance(one, ClosedEntry):
            yield from ((host, one.metadata.namespace) for host in one.spec.hosts)
        elif isinstance(one, ClosedService):
            yield host_of(one, domain), one.metadata.namespace
