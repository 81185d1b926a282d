"""Finds the VirtualServices that a gateway's server serves, and their hosts.

There is one answer for all protocols. A host of a server may name the namespace whose
VirtualServices alone may use it:
https://istio.io/latest/docs/reference/config/networking/gateway/#Server.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from meshd.api.hosts import common
from meshd.compile.gateway.ports import BoundServer
from meshd.compile.visibility.routings import Routing
from meshd.compile.visibility.view import View


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A VirtualService at a server that serves some of its hosts."""

    routing: Routing
    pairs: tuple[tuple[str, str], ...]
    """A host of the server, and the narrower of it and one of the VirtualService's."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the hosts that both the server and the VirtualService cover."""
        return tuple(dict.fromkeys(host for _, host in self.pairs))

    @property
    def server_hosts(self) -> tuple[str, ...]:
        """Return the server's hosts that have anything in common with the VirtualService's."""
        return tuple(dict.fromkeys(host for host, _ in self.pairs))

    def narrowed(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return what these names and the hosts have in common."""
        pairs = (common(host, name.lower()) for name in names for host in self.hosts)
        return tuple(dict.fromkeys(host for host in pairs if host is not None))


def bound(view: View, server: BoundServer) -> Iterator[Bound]:
    """Yield VirtualServices that share a host with the server, oldest first."""
    routings = view.at_gateway(server.gateway_name)
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for owner, served in server.hosts:
        for index, host in routings.overlapping(served):
            if owner in {"*", routings.routings[index].namespace}:
                found[index].append((served, host))
    for index, pairs in sorted(found.items()):
        yield Bound(routings.routings[index], tuple(pairs))
