"""What decides a virtual host of a client's route table, and the host that it makes.

Most hosts are decided alike in every scope. So what decides is one value that is told by identity,
and the host is made of that value alone: whatever has the value may share the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from meshd.compile.http import routes
from meshd.compile.plan.routes import VirtualHost
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.routings import Routing, RoutingTable
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.seen import Seen, Settings
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

_ANY: Final = Scope("")


class Deciding(NamedTuple):
    """All that decides a virtual host of one name and port."""

    port: int
    scope: Scope
    """As much of the clients' as matters."""
    host: Seen
    routings: tuple[Routing, ...]
    """The VirtualServices that may apply, in order of precedence."""
    destinations: tuple[Seen, ...]
    """Where their routes and copies lead."""
    settings: Settings


class Rest(NamedTuple):
    """All that decides the host for names that nothing else stands for."""

    port: int
    services: tuple[Seen, ...]
    settings: Settings


def deciding(view: View, host: str, port: int) -> Deciding:
    """Return what decides the virtual host of a service, or of a host that is routed."""
    routings = tuple(view.mesh_routings.for_host(host))
    named = dict[str, None]()
    for routing in routings:
        named |= dict.fromkeys((*routing.destinations, *routing.copies))
    seen = view.seen(host)
    return Deciding(
        port,
        _as_it_matters(view, host, routings),
        seen,
        routings,
        tuple(map(view.seen, named)),
        view.index.settings,
    )


def _as_it_matters(view: View, host: str, routings: tuple[Routing, ...]) -> Scope:
    """Return the scope as far as it decides: which clients ask, or whether they use short names."""
    if routings and any(routing.tells_clients_apart for routing in routings):
        return view.scope
    is_own = host.endswith(f".{view.scope.namespace}.svc.{view.options.domain}")
    return Scope(view.scope.namespace) if is_own else _ANY


def rest(view: View, port: int) -> Rest:
    """Return what decides the host for all other names on a port."""
    by_address = view.options.service_cidr and view.options.outbound_policy != "REGISTRY_ONLY"
    found = routes.services(view, port) if by_address else ()
    return Rest(port, tuple(view.seen(record.host) for record in found), view.index.settings)


def virtual_host(by: Deciding) -> VirtualHost | None:
    """Return the virtual host; None: nothing is routed to a host that is no service."""
    view = _view(
        by.scope, (by.host, *by.destinations), by.settings.options, {by.host.host: by.routings}
    )
    if by.host.record is None:
        return routes.unserved_host(view, by.host.host, by.port)
    return routes.service_host(view, by.host.record, by.port)


def virtual_host_of_rest(by: Rest) -> VirtualHost:
    view = _view(_ANY, by.services, by.settings.options, {})
    records = view.services.values()
    return routes.anything_else(by.settings.options, routes.default_routes(view, records, by.port))


def _view(
    scope: Scope,
    seen: Iterable[Seen],
    options: MeshOptions,
    routings: dict[str, tuple[Routing, ...]],
) -> View:
    """Return a view in which there is nothing else."""
    known = {one.host: one for one in seen}
    services = {host: one.record for host, one in known.items() if one.record is not None}
    rules: dict[tuple[str, bool, bool], RuleSet] = {}
    for host, one in known.items():
        rules[host, False, False] = one.rules
        rules[host, False, True] = one.of_copies
    hidden = {
        host: ServiceRecord(host=host, namespace="")
        for host, one in known.items()
        if one.is_known and one.record is None
    }
    index = MeshIndex.of(Snapshot(options=options, services=services | hidden))
    return View(
        scope=scope,
        index=index,
        services=services,
        by_port={},
        routings=(),
        mesh_routings=RoutingTable(routings, ()),
        content=(scope, index.content, ()),
        known_rules=rules,
    )
