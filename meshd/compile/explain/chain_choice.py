"""Chooses a filter chain by a connection's destination and first bytes.

A listener's chains are named, and one tree of questions leads to them. So the tree may change as
services and hosts come and go, and Envoy leaves the connections of all chains alone that are the
same as before: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/listeners/lds.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.compile.envoy.matching import Way, by_http, by_network, by_server_name, by_tls, to_chain

ANYWHERE: Final = ""
"""In place of a network."""


@dataclasses.dataclass(slots=True)
class Level:
    """The chains for connections to one network, by name; empty: none."""

    names: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    """By server name: TLS with such a name."""
    tls: str = ""
    """TLS with any other name, or none."""
    http: str = ""
    """What begins like HTTP, in plaintext."""
    rest: str = ""
    """Whatever else. TLS too, unless it is HTTP's own chain."""
    kept: list[str] = dataclasses.field(default_factory=list[str])
    """Nothing new goes there, but what is there may stay."""

    @property
    def is_inspected(self) -> bool:
        """Return whether the first bytes have to be inspected."""
        return bool(self.names or self.tls) or self.http not in {"", self.rest}

    def chains(self) -> Iterator[str]:
        named = (*self.names.values(), self.tls, self.http, self.rest, *self.kept)
        yield from filter(None, named)

    def way(self) -> Way | None:
        """Return the tree; None if it leads nowhere."""
        tls = _to(self.tls or (self.rest if self.rest != self.http else ""))
        by_name = by_server_name({name: to_chain(to) for name, to in self.names.items()}, tls)
        plain = _to(self.rest)
        if self.http not in {"", self.rest}:
            plain = by_http(to_chain(self.http), plain)
        return plain if by_name == plain else by_tls(by_name, plain)


def _to(chain: str) -> Way | None:
    return to_chain(chain) if chain else None


class Choice:
    """Collects the chains that want connections to one port; the first that wants a connection gets
    it."""

    def __init__(self, levels: Mapping[str, Level] | None = None) -> None:
        self._levels: dict[str, Level] = defaultdict(Level, levels or {})
        self._beside_tls = False

    def add(
        self,
        chain: str,
        networks: Iterable[str] = (),
        names: Iterable[str] = (),
        *,
        only_tls: bool = False,
        keep: bool = False,
    ) -> None:
        """Add a chain.

        No networks: connections to anywhere. No names: any server name. ``keep``: the chain exists
        even if others have all its connections.
        """
        names = tuple(names)
        for level in self._at(networks):
            for name in names:
                level.names.setdefault(name, chain)
            if only_tls and not names:
                level.tls = level.tls or chain
            elif not names:
                level.rest = level.rest or chain
                if keep and level.rest != chain:
                    level.kept.append(chain)

    def add_http(self, chain: str, networks: Iterable[str] = ()) -> None:
        """Add a chain for what begins like HTTP and, where no other chain wants it, all that is not
        TLS."""
        for level in self._at(networks):
            level.http = level.http or chain

    def expect_tls(self) -> None:
        """Note that a service on the port speaks TLS, which the chain for HTTP to anywhere does not
        get."""
        self._beside_tls = True

    def close(self) -> None:
        """Finish: chains for HTTP only also get the rest if no other chain does."""
        for level in self._levels.values():
            level.rest = level.rest or level.http

    @property
    def is_inspected(self) -> bool:
        anything = self._levels.get(ANYWHERE, Level())
        beside = self._beside_tls and bool(anything.http)
        return beside or any(level.is_inspected for level in self._levels.values())

    def way(self) -> Way | None:
        levels = {
            network: way
            for network, level in self._levels.items()
            if (way := level.way()) is not None
        }
        return by_network(levels, levels.pop(ANYWHERE, None))

    def inspected(self) -> Choice:
        """Return the choice that remains once the first bytes are known, after ``direct``."""
        return Choice(
            {
                network: level
                for network, level in self._levels.items()
                if level.is_inspected or network == ANYWHERE or not _is_single(network)
            }
        )

    def direct(self, inspect: str) -> Choice:
        """Return the choice by address alone; the chain ``inspect`` gets what that does not decide.

        On a port where others speak something else, HTTP to anywhere is not decided by address
        either.
        """

        def decided(network: str, level: Level) -> Level:
            anything = network == ANYWHERE and level.http and self.is_inspected
            if not level.is_inspected and not anything:
                return level
            # HTTP that came here before there was anything to look for goes on here.
            return Level(rest=inspect, kept=[level.http] if network == ANYWHERE else [])

        return Choice({network: decided(network, level) for network, level in self._levels.items()})

    def chains(self) -> Iterator[str]:
        for level in self._levels.values():
            yield from level.chains()

    def _at(self, networks: Iterable[str]) -> list[Level]:
        found = [str(ipaddress.ip_network(network, strict=False)) for network in networks]
        return [self._levels[network] for network in found or (ANYWHERE,)]


def _is_single(network: str) -> bool:
    return ipaddress.ip_network(network).num_addresses == 1
