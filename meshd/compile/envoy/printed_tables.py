"""Route configurations as bytes, put together from those of their virtual hosts.

A virtual host is printed once for all scopes that have it. That a message's bytes are those of its
fields, one after the other, and of its repeated fields' items, is the encoding's own promise:
https://protobuf.dev/programming-guides/encoding/#last-one-wins
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from envoy.config.route.v3 import route_pb2

from meshd.compile.envoy.routes import route_settings, virtual_host
from meshd.compile.plan.routes import VirtualHost

_DIGEST: Final = 16
"""Bytes of a digest."""
_SUM: Final = _DIGEST + 8
_Table = route_pb2.RouteConfiguration


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PrintedHost:
    """A virtual host, as the field of a route configuration that holds it and nothing else."""

    name: str
    domains: tuple[str, ...]
    body: bytes = dataclasses.field(repr=False)
    digest: int


def printed_host(host: VirtualHost) -> PrintedHost:
    table = _Table(virtual_hosts=[virtual_host(host)])
    return _printed(host.name, host.domains, table)


def with_domains(host: PrintedHost, domains: tuple[str, ...]) -> PrintedHost:
    """Return a host with other domains."""
    if domains == host.domains:
        return host
    table = _Table.FromString(host.body)
    table.virtual_hosts[0].domains[:] = domains
    return _printed(host.name, domains, table)


def _printed(name: str, domains: tuple[str, ...], table: _Table) -> PrintedHost:
    body = _bytes(table)
    return PrintedHost(name, domains, body, int.from_bytes(_digest(body), "big"))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PrintedTable:
    """A route configuration whose hosts are in tables of other scopes, too."""

    name: str
    hosts: Mapping[str, PrintedHost]
    """By their names, in order."""
    order: bytes
    """A digest of all but the hosts' own bytes."""
    content: int
    """The sum of the hosts' digests: so a table with one other host is no new sum over all."""
    is_distinct: bool = False
    """No host has given up a domain, or its place, to another: True only if that is certain."""

    @classmethod
    def of(
        cls, name: str, hosts: Iterable[PrintedHost], *, is_distinct: bool = False
    ) -> PrintedTable:
        found = {host.name: host for host in hosts}
        content = sum(host.digest for host in found.values())
        return cls(name, found, _order(name, found), content, is_distinct)

    def edited(
        self, order: Iterable[str], made: Mapping[str, PrintedHost | None]
    ) -> PrintedTable | None:
        """Return the table in which ``made`` replace hosts of the same names, join them, or remove
        them; None if domains may not be distinct then. ``order``: the names of all hosts."""
        kept = {name: host for name, host in self.hosts.items() if name not in made}
        come = {name: host for name, host in made.items() if host is not None}
        domains = [one for host in come.values() for one in host.domains]
        wanted = frozenset(domains)
        if not self.is_distinct or len(wanted) < len(domains):
            return None
        if not all(wanted.isdisjoint(host.domains) for host in kept.values()):
            return None
        both = kept | come
        hosts = {name: both[name] for name in order if name in both}
        if len(hosts) < len(both):
            return None
        content = self.content + sum(host.digest for host in come.values())
        content -= sum(self.hosts[name].digest for name in made if name in self.hosts)
        return PrintedTable(self.name, hosts, _order(self.name, hosts), content, is_distinct=True)

    def replaced(self, made: Iterable[PrintedHost]) -> PrintedTable:
        """Return the table with others in place of hosts that have the same names, if it has them,
        and domains."""
        hosts, content = dict(self.hosts), self.content
        for host in made:
            if (kept := hosts.get(host.name)) is not None:
                hosts[host.name] = new = with_domains(host, kept.domains)
                content += new.digest - kept.digest
        return PrintedTable(self.name, hosts, self.order, content, self.is_distinct)

    def __bytes__(self) -> bytes:
        bodies = [host.body for host in self.hosts.values()]
        return b"".join((_bytes(_Table(name=self.name)), *bodies, _settings()))

    @property
    def version(self) -> str:
        """Return a text that is equal exactly when the bytes are."""
        return _digest(self.order + self.content.to_bytes(_SUM, "big"))[:8].hex()

    def message(self) -> _Table:
        return _Table.FromString(bytes(self))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CommonHosts:
    """The hosts that several tables have in common."""

    hosts: Mapping[str, PrintedHost | None]
    """The hosts by name, in order; None for one that differs from table to table."""
    owners: Mapping[str, str]
    """The names of hosts, by their domains."""
    content: int
    """The sum of the hosts' digests."""

    @classmethod
    def of(cls, hosts: tuple[tuple[str, PrintedHost | None], ...]) -> CommonHosts | None:
        """Return the common hosts; None if names or domains are not distinct."""
        named = dict(hosts)
        known = [host for host in named.values() if host is not None]
        owners = {domain: host.name for host in known for domain in host.domains}
        if len(named) < len(hosts) or len(owners) < sum(len(host.domains) for host in known):
            return None
        return cls(named, owners, sum(host.digest for host in known))

    def table(
        self, name: str, others: tuple[tuple[str, PrintedHost | None], ...]
    ) -> PrintedTable | None:
        """Return the table in which ``others`` replace hosts of the same names, or remove them;
        None if domains are not distinct then."""
        hosts, content, taken = dict(self.hosts), self.content, set[str]()
        for key, host in others:
            if (common := hosts.pop(key) if host is None else hosts[key]) is not None:
                content -= common.digest
            if host is not None:
                hosts[key], content = host, content + host.digest
                domains = {one for one in host.domains if self.owners.get(one, key) == key}
                if len(domains) < len(host.domains) or not taken.isdisjoint(domains):
                    return None
                taken |= domains
        found = {key: host for key, host in hosts.items() if host is not None}
        return PrintedTable(name, found, _order(name, found), content, is_distinct=True)


def _order(name: str, hosts: Iterable[str]) -> bytes:
    """Return a digest of a table without the bytes of its hosts."""
    return _digest("\0".join((name, *hosts)).encode() + _settings())


@functools.cache
def _settings() -> bytes:
    return _bytes(route_settings())


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _bytes(table: _Table) -> bytes:
    return table.SerializeToString(deterministic=True)
