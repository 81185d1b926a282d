"""The limits of what two objects make together, and what of an object is beyond these. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

MOST_ROUTED: Final = 65_536
"""Values in all routes that one VirtualService makes of what one namespace declares."""
MOST_SUBSETS: Final = 1024
"""Clusters that the subsets of one DestinationRule make of services of one namespace."""
MOST_SUBSETS_OF_MANY: Final = 4
"""Subsets that a DestinationRule may have whatever its wildcard stands for: they make so many times
the clusters that there are anyway."""


class Excess(msgspec.Struct, frozen=True):
    """The parts of an object that would make too much of the proxies' configuration."""

    why: str = ""
    """Why the object itself is too large; empty if it is not."""
    ports: frozenset[tuple[str, str, int]] = frozenset()
    """Ports of other namespaces' services at which a VirtualService's routes do not fit: namespace,
    host and number."""
    gateways: frozenset[str] = frozenset()
    """Gateways of other namespaces at which its routes do not fit: ``NAMESPACE/NAME``."""
    delegates: frozenset[tuple[str, str]] = frozenset()
    """Delegates of a VirtualService, in other namespaces, whose routes do not fit: namespace and
    name."""
    services: frozenset[tuple[str, str]] = frozenset()
    """Services of other namespaces for which a DestinationRule's subsets do not fit: namespace and
    host."""

    def lines(self) -> Iterator[str]:
        """Yield a line for each part that is left out, with what has to become smaller."""
        most = f"more than {MOST_ROUTED} values in its routes"
        ports = Counter((namespace, host) for namespace, host, _ in self.ports)
        for (namespace, host), count in sorted(ports.items()):
            some = "1 port" if count == 1 else f"{count} ports"
            what = f"{some} of {host} in namespace {namespace} would make {most}"
            yield f"{what}: its routes are closed there; declare fewer ports in {namespace}"
        for gateway in sorted(self.gateways):
            what = f"the servers of Gateway {gateway} would make {most}"
            yield f"{what}: its hosts are closed there; name fewer hosts in that Gateway"
        for namespace, name in sorted(self.delegates):
            what = f"the routes of VirtualService {namespace}/{name} would make {most}"
            yield (
                f"{what}: what it delegates to that one is closed, so requests are answered 503;"
                " have fewer routes there"
            )
        for namespace, host in sorted(self.services):
            what = f"the ports of {host} in namespace {namespace} would make more than"
            yield (
                f"{what} {MOST_SUBSETS} clusters of its subsets: they are left out for that"
                " service, so requests to them are answered 503; declare fewer ports in"
                f" {namespace}"
            )


NOTHING: Final = Excess()
