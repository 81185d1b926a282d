"""Plans a snapshot for all its workloads, as parts. It decides nothing: it asks those who do."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Final

from meshd.compile.comparison import names, reach
from meshd.compile.comparison.connections import connections
from meshd.compile.comparison.parts import Client, HostRoutes, Part, Parts, Planned
from meshd.compile.gateway import gateway
from meshd.compile.gateway.ports import GatewayPorts, gateway_ports
from meshd.compile.gateway.routes import gateway_route_table
from meshd.compile.gateway.secrets import Credentials
from meshd.compile.http.delegation import delegated
from meshd.compile.http.routes import http_ports, route_table
from meshd.compile.memo import Memo
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.routes import RouteTable, VirtualHost
from meshd.compile.plan.upstreams import Assignment, Upstream
from meshd.compile.policy.acceptance import as_accepted
from meshd.compile.policy.authorization import authorization, policies_of
from meshd.compile.policy.peer_authentication import peer_policy
from meshd.compile.policy.served import Ports, served_ports
from meshd.compile.traffic.scope_listeners import scope_choices, scope_listeners
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.rule_credentials import secrets_needed
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope, scopes
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload

_MESH: Final = Client("mesh")
_Listed = tuple[Part, ...]


class Planner:
    """Plans snapshots; what clients are planned is the very same object where they see the same."""

    def __init__(self) -> None:
        self._memo = Memo()

    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Planned:
        """Return what the workloads of these uids are planned."""
        snapshot = delegated(as_accepted(snapshot))
        index, found = MeshIndex.of(snapshot), scopes(snapshot)
        served = served_ports(snapshot.services, index.rules)
        gateways = gateway_ports(snapshot)
        credentials = Credentials(snapshot.secrets, self._memo)
        uids = sorted(set(serving) & found.keys())
        views = {scope: View.of(index, scope) for scope in {found[uid] for uid in uids}}
        parts: dict[Client, Parts] = {}
        for scope, view in sorted(views.items()):
            _need_secrets(credentials, view)
            parts[_client(scope)] = self._memo.call(
                ("view", scope), _of_view, view, self._of_services(view), snapshot.options
            )
        for uid in uids:
            workload = snapshot.workloads[uid]
            parts[Client("workload", uid)] = _by_key(
                _of_workload(workload, snapshot, served.get(uid, {}))
            )
            if ports := gateways.get(uid):
                for need in ports.secrets_needed(workload.namespace):
                    credentials.need(need)
                view = views[found[uid]].as_gateway()
                parts[Client("gateway", uid)] = _by_key(
                    _of_gateway(workload, ports, view, snapshot.options, credentials)
                )
        parts[_MESH] = _by_key(Part("certificate", one.name, one) for one in credentials.served())
        self._memo.end_round()
        return Planned(parts)

    def _of_services(self, view: View) -> _Listed:
        """Return the upstreams of a view's services; many views have the same."""
        return tuple(
            part
            for host, service in view.services.items()
            for rules in (view.rules(host),)
            for part in self._memo.call(
                ("service", *service.place, rules.variant),
                _of_service,
                service,
                rules,
                view.options,
            )
        )


def _client(scope: Scope) -> Client:
    """Return the clients of a scope, with what tells them from others of their namespace."""
    which = [f"{key}={value}" for key, value in scope.labels]
    which += filter(None, (scope.locality, scope.client))
    return Client("namespace", scope.namespace + (f" ({', '.join(which)})" if which else ""))


def _by_key(parts: Iterable[Part]) -> Parts:
    """Return parts by key; of several with one key, the first, which is the one that counts."""
    found: Parts = {}
    for part in parts:
        found.setdefault(part.key, part)
    return found


def _need_secrets(credentials: Credentials, view: View) -> None:
    for host in view.services:
        rules = view.rules(host)
        if rules.spec and rules.namespace:
            for need in secrets_needed(rules.spec, rules.namespace, host):
                credentials.need(need)


def _of_view(view: View, of_services: _Listed, options: MeshOptions) -> Parts:
    """Return the parts of a view; ``of_services``: those of the services that it has."""
    return _by_key(_parts_of_view(view, of_services, options))


def _parts_of_view(view: View, of_services: _Listed, options: MeshOptions) -> Iterator[Part]:
    upstreams: set[str] = set()
    for part in of_services:
        if part.kind == "upstream":
            upstreams.add(part.name)
        yield part
    for port in http_ports(view):
        yield from of_table(route_table(view, port), upstreams)
    for listener in scope_listeners(view.scope.name, scope_choices(view, options), "", options):
        yield from with_missing(connections(listener), upstreams)


def of_table(table: RouteTable, upstreams: Container[str]) -> Iterator[Part]:
    """Yield the hosts and routes of a table; ``upstreams``: the names of those that there are."""
    for host in table.hosts:
        if host.domains == ("*",) and not any(route.origin for route in host.routes):
            continue  # what no service wants is the same under each configuration
        name = names.short(host.name)
        conditions = tuple(names.of_match(route.match) for route in host.routes)
        yield Part("host", name, HostRoutes(host.domains, host.only_tls, conditions), host.origin)
        yield from with_missing(_of_routes(name, host, conditions), upstreams)


def _of_routes(name: str, host: VirtualHost, conditions: Iterable[str]) -> Iterator[Part]:
    unreached = frozenset(reach.unreached(host.routes))
    for index, (route, condition) in enumerate(zip(host.routes, conditions, strict=True)):
        named = f"{name}, {condition}" if condition else name
        yield Part("route", named, route, route.origin)
        if index in unreached:
            yield Part("unreached", f"route of {named}", None, route.origin)


def with_missing(parts: Iterable[Part], upstreams: Container[str]) -> Iterator[Part]:
    """Yield parts, and a further one for each destination of theirs that is not there."""
    for part in parts:
        yield part
        what = f"{'route of' if part.kind == 'route' else 'connections to'} {part.name}"
        for name in reach.destinations(part.value):
            if (words := names.of_upstream(name)) not in upstreams:
                yield Part("missing", f"{what}|{words}", None, part.origin)


def _of_service(service: ServiceRecord, rules: RuleSet, options: MeshOptions) -> _Listed:
    """Return the upstreams of a service and their endpoints."""
    return (
        *map(_of_upstream, service_upstreams(service, rules, options)),
        *map(_of_assignment, service_assignments(service, rules, options).values()),
    )


def _of_upstream(upstream: Upstream) -> Part:
    return Part("upstream", names.of_upstream(str(upstream.name)), upstream, upstream.origin)


def _of_assignment(assigned: Assignment) -> Part:
    places = sorted(
        f"{place.address}:{place.port}" for group in assigned.groups for place in group.places
    )
    return Part("endpoints", names.of_upstream(assigned.name), tuple(places))


def _of_workload(workload: Workload, snapshot: Snapshot, ports: Ports) -> Iterator[Part]:
    root = snapshot.options.root_namespace
    policy = peer_policy(snapshot.peer_authentications, workload, root)
    yield Part("policy", "mutual TLS", str(policy.mode), policy.origin)
    for port, mode in policy.port_modes.items():
        yield Part("policy", f"mutual TLS of port {port}", str(mode), policy.origin_of(port))
    guard = authorization(policies_of(snapshot), workload, snapshot.options)
    if guard is not None:
        for rule in guard.deny:
            yield Part("authorization", f"denied by {rule.origin}", rule.clauses, rule.origin)
        for rule in guard.allow or ():
            yield Part("authorization", f"allowed by {rule.origin}", rule.clauses, rule.origin)
        for rule in (*guard.audit, *guard.tried.deny, *(guard.tried.allow or ())):
            yield Part("authorization", f"noted by {rule.origin}", rule.clauses, rule.origin)
        others = "denied" if guard.allow is not None else "allowed"
        yield Part("authorization", "whatever no rule fits", others)
    for port, spoken in ports.items():
        yield Part("port", f"{port}", str(spoken))


def _of_gateway(
    workload: Workload,
    ports: GatewayPorts,
    view: View,
    options: MeshOptions,
    credentials: Credentials,
) -> Iterator[Part]:
    upstreams = {
        names.of_upstream(str(upstream.name))
        for host, service in view.services.items()
        for upstream in service_upstreams(service, view.rules(host), options)
    }
    identity = Identity(options.trust_domain, workload.namespace, workload.service_account)
    listeners = gateway.workload_listeners(
        workload, identity, ports, view, options, credentials.is_served
    )
    for listener in listeners:
        yield from with_missing(_of_gateway_listener(listener), upstreams)
    for name, port, servers in ports.route_configurations():
        yield from of_table(gateway_route_table(view, name, port, servers), upstreams)


def _of_gateway_listener(listener: Listener) -> Iterator[Part]:
    socket = listener.socket
    assert socket is not None  # noqa: S101  (gateways listen on ports)
    yield Part("listener", f"port {socket.port}", None)
    yield from connections(listener, f"port {socket.port}")
