"""The route tables of all namespaces' clients, where all see the same mesh.

Most hosts are the same in all tables of a port, and are made once. For each scope only those hosts
are made that have a short name in its namespace, or whose rules differ from client to client.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshd.api.protocol import DEFAULT_HTTP_PORT
from meshd.compile.envoy.printed_tables import CommonHosts, PrintedHost, PrintedTable, with_domains
from meshd.compile.http.routes import domains, http_ports, services
from meshd.compile.memo import Memo
from meshd.compile.names import client_routes
from meshd.compile.shared.client_tables import client_table, host_of, rest_of
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import NOBODY
from meshd.compile.visibility.view import View

_REST = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _OfPort:
    common: CommonHosts
    rest: str
    """The name of the virtual host for all other names."""
    varying: Sequence[str]
    """Hosts that differ from scope to scope; an empty name: the virtual host for all other
    names."""
    own: Mapping[str, Sequence[str]]
    """Other hosts by the namespace in which they have short names."""


class CommonTables:
    """The tables of a mesh that all clients see alike."""

    def __init__(self, index: MeshIndex, memo: Memo) -> None:
        self._view = View.of(index, NOBODY)
        self._memo = memo
        self._ports: dict[int, _OfPort | None] = {}
        self._alike: dict[str, bool] = {}

    def tables(self, view: View) -> Iterator[PrintedTable]:
        """Yield the tables of a scope, one for each port."""
        for port in http_ports(view):
            if port not in self._ports:
                self._ports[port] = self._of_port(port)
            yield self._table(view, port) or client_table(view, port, self._memo)

    def _of_port(self, port: int) -> _OfPort | None:
        """Return the common part of a port's tables; None if its hosts are not distinct."""
        varying, own = list[str](), defaultdict[str, list[str]](list)
        hosts = list[tuple[str, PrintedHost | None]]()
        rest = rest_of(self._view, port, self._memo).name
        for host in (*self._hosts(port), _REST):
            name = _name(host, port) if host != _REST else rest
            if not self._is_common(host, port):
                varying.append(host)
                hosts.append((name, None))
            elif (made := self._host(self._view, host, port)) is not None:
                hosts.append((name, made))
                own[_namespace(host, self._view.options.domain)].append(host)
        common = self._memo.call(("common hosts", port), CommonHosts.of, tuple(hosts))
        return common and _OfPort(common, rest, varying, own)

    def _table(self, view: View, port: int) -> PrintedTable | None:
        known = self._ports[port]
        if known is None:
            return None
        name = client_routes(port, view.scope.name)
        others = (
            *(
                (known.rest if host == _REST else _name(host, port), self._host(view, host, port))
                for host in known.varying
            ),
            *self._own(view, port, known),
        )
        called = ("common routes", name)
        return self._memo.call(called, CommonHosts.table, known.common, name, others)

    def _own(self, view: View, port: int, known: _OfPort) -> Iterator[tuple[str, PrintedHost]]:
        """Yield the common hosts that have short names in the clients' namespace, with these."""
        for host in known.own.get(view.scope.namespace, ()):
            name, called = _name(host, port), ("own host", view.scope.namespace, host, port)
            if (common := known.common.hosts[name]) is not None:
                yield name, self._memo.call(called, with_domains, common, domains(view, host))

    def _hosts(self, port: int) -> Iterator[str]:
        """Yield the hosts of services, then routed hosts without a service."""
        for record in services(self._view, port):
            yield record.host
        for host in self._view.mesh_routings.hosts() if port == DEFAULT_HTTP_PORT else ():
            if host not in self._view.services:
                yield host

    def _host(self, view: View, host: str, port: int) -> PrintedHost | None:
        return (
            rest_of(view, port, self._memo)
            if host == _REST
            else host_of(view, host, port, self._memo)
        )

    def _is_common(self, host: str, port: int) -> bool:
        """Return whether a host is the same for all clients, except for its short names."""
        if host == _REST:
            return all(self._is_ruled_alike(one.host) for one in services(self._view, port))
        return self._is_ruled_alike(host) and not any(
            routing.tells_clients_apart
            or not all(map(self._is_ruled_alike, (*routing.destinations, *routing.copies)))
            for routing in self._view.mesh_routings.for_host(host)
        )

    def _is_ruled_alike(self, host: str) -> bool:
        """Return whether the same rules hold for a host for all clients."""
        found = self._alike.get(host)
        if found is None:
            record = self._view.services.get(host)
            found = record is None or self._view.index.rules.are_the_same_for_all(record)
            self._alike[host] = found
        return found


def _name(host: str, port: int) -> str:
    """Return the name of the virtual host of a host at a port."""
    return f"{host}:{port}"


def _namespace(host: str, domain: str) -> str:
    """Return the namespace in which a host has short names; empty if it has none."""
    stem = host.removesuffix(f".svc.{domain}")
    return "" if stem == host else stem.rpartition(".")[2] if "." in stem else ""
