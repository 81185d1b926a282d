"""The conditions of TLS and TCP routes, and the order in which a listener looks them up.

A listener looks first for the smallest network that contains the address, and then for the server
name. So two rules compete only if they name the same network and the same server name, or none: the
first of them counts.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from meshd.api.virtual_service.types import L4MatchAttributes, TLSMatchAttributes
from meshd.matching.entrances import Entrances

_OWN: Final = ""
"""In place of a network: all addresses of the service."""
_ANY: Final = "*"
"""In place of a server name: TLS with any name."""
_NO_TLS_NEEDED: Final = ""
"""In place of a server name: any connection, TLS or not."""
Place = TypeVar("Place")


class Slot(NamedTuple):
    """A network and a server name, for which only the first rule counts."""

    network: str
    server_name: str


def slots(match: TLSMatchAttributes | L4MatchAttributes) -> Iterator[Slot]:
    """Yield the slots that a match asks for."""
    networks = [canonical(network) for network in match.destination_subnets] or [_OWN]
    if isinstance(match, TLSMatchAttributes):
        names = server_names(match) or (_ANY,)
    else:
        names = (_NO_TLS_NEEDED,)
    for network in dict.fromkeys(networks):
        yield from (Slot(network, name) for name in dict.fromkeys(names))


def server_names(match: TLSMatchAttributes) -> tuple[str, ...]:
    """Return the server names of a match; empty if it takes any name, or none."""
    names = tuple(name.lower() for name in match.sni_hosts)
    return () if "*" in names else names


class EarlierRules(Generic[Place]):
    """The rules so far, by their slots."""

    def __init__(self) -> None:
        self._rules: dict[Slot, list[tuple[Entrances, Place]]] = defaultdict(list)

    def add(
        self, match: TLSMatchAttributes | L4MatchAttributes, place: Place, entrances: Entrances
    ) -> Place | None:
        """Add a rule; return the place of an earlier one if such take all its connections."""
        wanted = tuple(slots(match))
        found = [self._covering(slot, entrances) for slot in wanted]
        for slot in wanted:
            self._rules[slot].append((entrances, place))
        return found[0] if all(each is not None for each in found) else None

    def _covering(self, slot: Slot, entrances: Entrances) -> Place | None:
        known = self._rules.get(slot, ())
        return next((place for where, place in known if where.covers(entrances)), None)


@functools.lru_cache(maxsize=65536)
def canonical(text: str) -> str:
    """Return the canonical form of an address or a network; only a network of several addresses
    has a slash.

    Raises ValueError for what is neither.
    """
    network = ipaddress.ip_network(text, strict=False)
    return str(network.network_address if network.num_addresses == 1 else network)
