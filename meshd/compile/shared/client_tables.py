"""The route tables of scopes' clients: assembled from hosts that scopes share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from meshd.api.protocol import DEFAULT_HTTP_PORT
from meshd.compile.envoy.printed_tables import PrintedHost, PrintedTable, printed_host, with_domains
from meshd.compile.http import client_hosts
from meshd.compile.http.client_hosts import Deciding, Rest
from meshd.compile.http.routes import distinct, http_ports, services
from meshd.compile.memo import Memo
from meshd.compile.names import client_routes
from meshd.compile.visibility.view import View


def client_tables(view: View, memo: Memo) -> Iterator[PrintedTable]:
    """Yield the tables of a scope, a port each; the very ones of before, where nothing differs."""
    for port in http_ports(view):
        yield client_table(view, port, memo)


def client_table(view: View, port: int, memo: Memo) -> PrintedTable:
    name = client_routes(port, view.scope.name)
    wanted = tuple(_hosts(view, port, memo))
    hosts = tuple(
        host
        if domains == host.domains
        else memo.call(("with_domains", name, host.name), with_domains, host, domains)
        for host, domains in distinct(wanted)
    )
    return memo.call(("routes", name), PrintedTable.of, name, hosts, is_distinct=wanted == hosts)


def _hosts(view: View, port: int, memo: Memo) -> Iterator[PrintedHost]:
    for record in services(view, port):
        if (host := host_of(view, record.host, port, memo)) is not None:
            yield host
    for routed in view.mesh_routings.hosts() if port == DEFAULT_HTTP_PORT else ():
        is_service = routed in view.services
        if not is_service and (host := host_of(view, routed, port, memo)) is not None:
            yield host
    yield rest_of(view, port, memo)


def host_of(view: View, host: str, port: int, memo: Memo) -> PrintedHost | None:
    """Return the virtual host of a service or a routed host; None if there is none."""
    return memo.shared(_printed, client_hosts.deciding(view, host, port))


def rest_of(view: View, port: int, memo: Memo) -> PrintedHost:
    """Return the virtual host of all other names."""
    return memo.shared(_printed_rest, client_hosts.rest(view, port))


def rerouted_tables(
    view: View,
    hosts: Iterable[str],
    before: Mapping[str, PrintedTable],
    memo: Memo,
) -> Iterator[PrintedTable]:
    """Yield the tables of a scope that change with the routes of some hosts."""
    changed: dict[int, list[PrintedHost]] = defaultdict(list)
    for host in hosts:
        record = view.services.get(host)
        for port in () if record is None else record.http_ports:
            if (found := host_of(view, host, port, memo)) is not None:
                changed[port].append(found)
    anew = DEFAULT_HTTP_PORT in view.by_port and any(host not in view.services for host in hosts)
    if anew and DEFAULT_HTTP_PORT in http_ports(view):
        changed.pop(DEFAULT_HTTP_PORT, None)
        yield client_table(view, DEFAULT_HTTP_PORT, memo)
    for port, made in changed.items():
        yield before[client_routes(port, view.scope.name)].replaced(made)


class TableEdits:
    """Edits tables after services of some hosts have changed."""

    def __init__(self, changed: Iterable[str], memo: Memo) -> None:
        self._changed = tuple(changed)
        self._memo = memo
        self._orders: dict[tuple[int, int, int], tuple[str, ...]] = {}
        """The names of all hosts of a port, for each of the views that see the same."""

    def edited(self, view: View, port: int, before: PrintedTable) -> PrintedTable | None:
        """Return the table of a port in a view; None if hosts of the table may have domains in
        common."""
        rest = rest_of(view, port, self._memo)
        made: dict[str, PrintedHost | None] = {rest.name: rest}
        for host in self._changed:
            has = _has(view, host, port)
            made[f"{host}:{port}"] = host_of(view, host, port, self._memo) if has else None
        # The views live as long as the edits do, so that ids stay theirs.
        key = id(view.by_port), id(view.mesh_routings), port
        if (order := self._orders.get(key)) is None:
            order = self._orders[key] = *_names(view, port), rest.name
        return before.edited(order, made)


def _has(view: View, host: str, port: int) -> bool:
    """Return whether a host may be in the table of a port."""
    if (record := view.services.get(host)) is not None:
        return port in record.http_ports
    return port == DEFAULT_HTTP_PORT and host in view.mesh_routings.exact


def _names(view: View, port: int) -> Iterator[str]:
    """Yield the names of all hosts that may be in the table of a port, in order."""
    for record in services(view, port):
        yield f"{record.host}:{port}"
    for host in view.mesh_routings.hosts() if port == DEFAULT_HTTP_PORT else ():
        if host not in view.services:
            yield f"{host}:{port}"


def _printed(by: Deciding) -> PrintedHost | None:
    host = client_hosts.virtual_host(by)
    return None if host is None else printed_host(host)


def _printed_rest(by: Rest) -> PrintedHost:
    return printed_host(client_hosts.virtual_host_of_rest(by))
