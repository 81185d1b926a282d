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
from meshd.compile.visibility import View


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


def edited_table(
    view: View, port: int, changed: Iterable[str], before: PrintedTable, memo: Memo
) -> PrintedTable | None:
    """Return the table of a port after services of these hosts have changed; None if hosts of the
    table may have domains in common."""
    rest = rest_of(view, port, memo)
    made: dict[str, PrintedHost | None] = {rest.name: rest}
    for host in changed:
        made[f"{host}:{port}"] = host_of(view, host, port, memo) if _has(view, host, port) else None
    return before.edited((*_names(view, port), rest.name), made)


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
