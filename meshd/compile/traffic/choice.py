"""Chooses a filter chain by a connection's destination and first bytes.

A listener's chains are named, and one tree of questions leads to them. So the tree may change as
services and hosts come and go, and proxies leave the connections of all chains alone that are the
same as before.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.compile.hosts import specificity
from meshd.compile.plan.choices import (
    ByAddress,
    ByHttp,
    ByNetwork,
    ByReturn,
    ByServerName,
    ByTls,
    To,
    Way,
)
from meshd.matching.connections import canonical

ANYWHERE: Final = ""
"""In place of a network."""


@dataclasses.dataclass(slots=True)
class Level:
    """The chains for connections to one network; None: no chain."""

    names: dict[str, To] = dataclasses.field(default_factory=dict[str, To])
    """By server name: TLS with such a name."""
    tls: To | None = None
    """TLS with any other name, or none."""
    http: To | None = None
    """What begins like HTTP, in plaintext."""
    rest: To | None = None
    """Whatever else. TLS too, unless it is HTTP's own chain."""
    inspect: To | None = None
    """In place of all that: the chain to where the first bytes are inspected. ``rest`` gets only
    what comes back from there."""
    kept: list[str] = dataclasses.field(default_factory=list[str])
    """Nothing new goes there, but what is there may stay."""

    @property
    def _tells_http(self) -> bool:
        """Return whether HTTP goes elsewhere than the rest."""
        return self.http is not None and not _is_same(self.http, self.rest)

    @property
    def is_inspected(self) -> bool:
        """Return whether the first bytes have to be inspected."""
        return bool(self.names) or self.tls is not None or self._tells_http

    def chains(self) -> Iterator[str]:
        for to in (*self.names.values(), self.tls, self.http, self.rest, self.inspect):
            if to is not None:
                yield to.chain
        yield from self.kept

    def way(self) -> Way | None:
        """Return the tree; None if it leads nowhere."""
        plain: Way | None = self.rest
        if self.inspect is not None:
            return ByReturn(plain, self.inspect)
        if not self.names and self.tls is None and self.http is None:
            return plain
        tls = self.tls or (None if _is_same(self.rest, self.http) else self.rest)
        if self.http is not None and self._tells_http:
            plain = ByHttp(self.http, plain)
        by_name = _by_server_name(self.names, tls)
        return None if by_name is None and plain is None else ByTls(by_name, plain)


def _is_same(one: To | None, other: To | None) -> bool:
    """Return whether two ways lead to one chain, or both nowhere."""
    return (one and one.chain) == (other and other.chain)


def _without_bytes(network: str, level: Level) -> To | None:
    """Return the chain of a level for connections whose first bytes will not be inspected: one that
    is there anyway. None: there is none."""
    if level.http is None:
        return level.rest
    is_shared = network == ANYWHERE or _is_same(level.http, level.rest)
    return level.http if is_shared else None


def _by_server_name(names: Mapping[str, To], otherwise: Way | None) -> Way | None:
    """Ask for the name in the TLS hello; of wildcards (``*.example.com``), the longest that fits
    wins."""
    if not names:
        return otherwise
    exact = {name: to for name, to in names.items() if not name.startswith("*")}
    wild = sorted((name for name in names if name.startswith("*")), key=specificity)
    suffixes = tuple((name.removeprefix("*"), names[name]) for name in wild)
    return ByServerName(exact, suffixes, otherwise)


class Choice:
    """Collects the chains that want connections to one port; the first that wants a connection gets
    it."""

    def __init__(self, levels: Mapping[str, Level] | None = None) -> None:
        self._levels: dict[str, Level] = defaultdict(Level, levels or {})
        self._beside_tls = False

    def add(
        self,
        to: To,
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
                level.names.setdefault(name, to)
            if only_tls and not names:
                level.tls = level.tls or to
            elif not names:
                level.rest = level.rest or to
            if keep:
                level.kept.append(to.chain)

    def keep(self, chain: str, networks: Iterable[str] = ()) -> None:
        """Add a chain to which nothing new goes. The networks are those of one that is added."""
        for level in self._at(networks):
            level.kept.append(chain)

    def add_http(self, to: To, networks: Iterable[str] = ()) -> None:
        """Add a chain for what begins like HTTP and, where no other chain wants it, all that is not
        TLS."""
        for level in self._at(networks):
            level.http = level.http or to

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
        anything = self._levels.get(ANYWHERE)
        if self._beside_tls and anything is not None and anything.http is not None:
            return True
        return any(level.is_inspected for level in self._levels.values())

    @property
    def has_networks(self) -> bool:
        """Return whether a chain wants connections to a network of several addresses."""
        return any("/" in network for network in self._levels)

    def way(self) -> Way | None:
        """Return the tree; None if it leads nowhere."""
        ways: dict[str, Way] = {}
        for network, level in self._levels.items():
            if (way := level.way()) is not None:
                ways[network] = way
        return _by_network(ways, ways.pop(ANYWHERE, None))

    def direct(self, inspect: To) -> Choice:
        """Return the choice by address alone; the chain ``inspect`` gets what that does not decide.

        On a port where others speak something else, HTTP to anywhere is not decided by address
        either.
        """
        levels: dict[str, Level] = {}
        for network, level in self._levels.items():
            if self._needs_bytes(network):
                # What came here before there was anything to look for goes on here.
                kept = level.kept if level.http is None else []
                if network == ANYWHERE and level.http is not None:
                    kept = [level.http.chain]
                rest = _without_bytes(network, level)
                level = Level(rest=rest, inspect=inspect, kept=list(kept))  # noqa: PLW2901
            levels[network] = level
        return Choice(levels)

    def inspected(self, back: To) -> Choice:
        """Return the choice once the first bytes are known, after ``direct``.

        The chain ``back`` gets what ``direct`` decides: that of another configuration, which a
        proxy has for a moment beside this one, may leave it to the inspection.
        """
        return Choice(
            {
                network: level
                if level.is_inspected or network == ANYWHERE or "/" in network
                else Level(rest=back)
                for network, level in self._levels.items()
            }
        )

    def left(self) -> Iterator[str]:
        """Yield the networks of which ``direct`` leaves the connections to the inspection."""
        return filter(self._needs_bytes, self._levels)

    def _needs_bytes(self, network: str) -> bool:
        """Return whether connections to a network are not decided by address alone."""
        level = self._levels[network]
        shares = network == ANYWHERE and level.http is not None and self.is_inspected
        return shares or level.is_inspected

    def chains(self) -> Iterator[str]:
        for level in self._levels.values():
            yield from level.chains()

    def _at(self, networks: Iterable[str]) -> list[Level]:
        found = [canonical(network) for network in networks]
        return [self._levels[network] for network in found or (ANYWHERE,)]


def _by_network(ways: Mapping[str, Way], otherwise: Way | None) -> Way | None:
    """Ask for the address that the client wanted, then for the smallest network that it is in."""
    large = {network: way for network, way in ways.items() if "/" in network}
    single = {address: way for address, way in ways.items() if address not in large}
    if large:
        otherwise = ByNetwork(large, otherwise)
    return ByAddress(single, otherwise) if single else otherwise
