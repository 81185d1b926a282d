"""What of the plan is never reached, and what it leads to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshd.compile.comparison.connections import Destination
from meshd.compile.names import OutboundCluster, parse_cluster
from meshd.compile.plan.chains import Tcp
from meshd.compile.plan.routes import Forward, Route
from meshd.matching.earlier import Earlier


def unreached(routes: Sequence[Route]) -> Iterator[int]:
    """Yield the indices of routes whose requests an earlier route takes, all of them."""
    earlier = Earlier[int]()
    for index, route in enumerate(routes):
        if earlier.add(route.match, index) is not None:
            yield index


def destinations(value: object) -> Iterator[str]:
    """Yield the names of services' upstreams to which a route or connections lead."""
    names: list[str] = []
    if isinstance(value, Route) and isinstance(value.action, Forward):
        names = [target.upstream for target in value.action.targets]
        names += [mirror.upstream for mirror in value.action.mirrors]
    elif isinstance(value, Destination) and isinstance(value.target, Tcp):
        names = [name for name, _ in value.target.upstreams]
    yield from (name for name in names if isinstance(parse_cluster(name), OutboundCluster))
