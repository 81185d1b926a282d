"""The result of a compilation, and how the next one goes on from it."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from meshd.api.kubernetes.types import Secret
from meshd.compile import messages
from meshd.compile.changes.routes import Rerouted, hosts
from meshd.compile.changes.services import Changed
from meshd.compile.clients import Client, Clients, OfClients
from meshd.compile.envoy.printed_listeners import PrintedListener
from meshd.compile.envoy.printed_messages import PrintedMessage
from meshd.compile.envoy.printed_tables import PrintedTable
from meshd.compile.envoy.secrets import secret
from meshd.compile.envoy.table_choice import choosable_tables
from meshd.compile.gateway.secrets import Credentials
from meshd.compile.memo import Memo
from meshd.compile.names import is_of_gateway, workload_of
from meshd.compile.policy.acceptance import Acceptance
from meshd.compile.shared.client_tables import rerouted_tables
from meshd.compile.shared.listeners import ScopeListeners
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.rule_credentials import credential_names
from meshd.compile.upstream.shape import shape
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.pool import LIMITS, Pool
from meshd.model.service import Place, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot


class Kind(enum.Enum):
    """The kinds of resources, in the order in which Envoy wants to learn of them."""

    RUNTIME = "envoy.service.runtime.v3.Runtime"
    CLUSTER = "envoy.config.cluster.v3.Cluster"
    ENDPOINT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
    CHOOSABLE = "envoy.config.route.v3.ScopedRouteConfiguration"
    LISTENER = "envoy.config.listener.v3.Listener"
    ROUTE = "envoy.config.route.v3.RouteConfiguration"


Printed = Message | PrintedMessage | PrintedTable | PrintedListener
"""A resource: the route tables and listeners of clients consist of parts that they share, and of
what there is much, only the bytes are kept."""
_NAME: Final = "name"
"""The field of a resource's name: all kinds of messages have one."""
Messages = dict[str, Any]
"""Resources of one kind, by name."""
Compiled = dict[Kind, Messages]
"""What a pool is told. Which type of message it is follows from the kind."""


def by_name(made: Iterable[Printed]) -> Messages:
    """Return resources of one kind by their names."""
    return {getattr(message, _NAME): message for message in made}


def replaced(messages: Messages, gone: Iterable[str], made: Messages) -> Messages:
    """Return the messages without those that are gone, and with those that were made; the very ones
    of before where nothing differs."""
    lost = set(gone) - made.keys()
    new = {
        name: one
        for name, one in made.items()
        if name not in messages or not _is_same(messages[name], one)
    }
    if not new and lost.isdisjoint(messages):
        return messages
    return {name: one for name, one in messages.items() if name not in lost} | new


def _is_same(old: Printed, new: Printed) -> bool:
    if isinstance(old, PrintedListener) and isinstance(new, PrintedListener):
        return old.version == new.version
    return old is new or old == new


@dataclasses.dataclass(frozen=True, slots=True)
class Ruled:
    """A service that clients see, with rules that hold for some of them."""

    service: ServiceRecord
    """The service, with mutual TLS only for endpoints that accept it."""
    rules: RuleSet
    secrets: frozenset[str]
    """The names of secrets that its clusters need and that can be served."""

    def clusters(self, options: MeshOptions) -> messages.PrintedMessages:
        return messages.service_clusters(shape(self.service), self.rules, options, self.secrets)

    def assignments(self, options: MeshOptions) -> messages.PrintedMessages:
        return messages.service_assignments(self.service, self.rules, options)

    @property
    def in_clusters(self) -> tuple[object, ...]:
        """Return what its clusters depend on of its endpoints."""
        return self.service.accounts, self.service.near

    @property
    def needs_secrets(self) -> bool:
        """Return whether its clusters may need secrets."""
        spec = self.rules.spec
        return spec is not None and any(True for _ in credential_names(spec))


def reruled(
    traffic: Compiled, old: Collection[Ruled], new: Collection[Ruled], options: MeshOptions
) -> Compiled:
    """Return the resources with the clusters and assignments of the new ones in place of those of
    the old ones. ``new``: with all that stay of a service of which one has gone, for they may have
    assignments in common."""
    found = dict(traffic)
    for kind in (Kind.CLUSTER, Kind.ENDPOINT):
        gone, come = (_made_of(kind, those, options) for those in (old, new))
        found[kind] = replaced(traffic[kind], gone, come)
    return found


def _made_of(kind: Kind, ruled: Iterable[Ruled], options: MeshOptions) -> Messages:
    """Return the clusters or the assignments of services."""
    found = Messages()
    for one in ruled:
        made = one.assignments(options) if kind is Kind.ENDPOINT else one.clusters(options)
        found |= by_name(made)
    return found


def served_secrets(credentials: Credentials, memo: Memo) -> Iterator[Message]:
    """Yield the secrets that proxies are sent."""
    for plan in credentials.served():
        yield memo.call(("secret", plan.name), secret, plan)


def choosable(scopes: Iterable[Scope], routes: Messages, before: Messages) -> Messages:
    """Return which tables listeners choose by port: those of clients. ``before``: the former ones;
    the very same where nothing differs."""
    tables = (name for name, table in routes.items() if isinstance(table, PrintedTable))
    wanted = choosable_tables((scope.name for scope in scopes), tables)
    if before.keys() == wanted.keys():
        return before
    return {name: before[name] if name in before else make() for name, make in wanted.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Last:
    """What was compiled last."""

    snapshot: Snapshot
    """With the VirtualServices that are in force, as ``delegated`` returns it."""
    serving: frozenset[str]
    compiled: Mapping[Pool, Compiled]
    index: MeshIndex
    views: Mapping[Scope, View]
    """Of the index. What they say of endpoints may be old."""
    acceptance: Acceptance
    ruled: Mapping[Place, Sequence[Ruled]]
    """Each service that clients see, with each set of rules for it."""

    clients: Clients
    """The workloads that are served."""
    entrances: Mapping[str, messages.Entrance]
    """What their listeners for incoming connections depend on, by uid."""
    credentials: Credentials
    requests: Mapping[Scope, tuple[int, ...]]
    """The ports at which all is HTTP that a scope's clients send."""

    def with_requests(self, before: Last, memo: Memo) -> Last:
        """Return the result with what follows from ``requests`` and from the tables that there are:
        the listeners of workloads, and the tables among which these choose. ``before``: with those
        for it."""
        traffic = dict(self.compiled[Pool.TRAFFIC])
        tables = choosable(self.views, traffic[Kind.ROUTE], traffic[Kind.CHOOSABLE])
        changed = {
            scope
            for scope, ports in self.requests.items()
            if scope in before.requests and ports != before.requests[scope]
        }
        if not changed and tables is traffic[Kind.CHOOSABLE]:
            return self
        made, clients = OfClients(self.snapshot, self.clients, memo), self.clients.values()
        others = (
            made.listeners(one, self.requests[one.scope]) for one in clients if one.scope in changed
        )
        listeners = by_name(itertools.chain.from_iterable(others))
        traffic[Kind.LISTENER] = replaced(traffic[Kind.LISTENER], (), listeners)
        traffic[Kind.CHOOSABLE] = tables
        return dataclasses.replace(self, compiled={**self.compiled, Pool.TRAFFIC: traffic})

    def with_secrets(self, secrets: Mapping[str, Secret], memo: Memo) -> Last | None:
        """Return the result after a change of Secrets; None: other things may name them now."""
        if secrets == self.snapshot.secrets:
            return self
        credentials = self.credentials.renewed(secrets, memo)
        if credentials is None:
            return None
        traffic = dict(self.compiled[Pool.TRAFFIC])
        before = traffic[Kind.SECRET]
        traffic[Kind.SECRET] = replaced(before, before, by_name(served_secrets(credentials, memo)))
        compiled = {**self.compiled, Pool.TRAFFIC: traffic}
        return dataclasses.replace(self, compiled=compiled, credentials=credentials)

    def with_endpoints(self, changed: Iterable[Changed], snapshot: Snapshot) -> Last:
        """Return the result for a snapshot that differs in endpoints of these services."""
        ruled, kinds = dict(self.ruled), dict(self.compiled[Pool.TRAFFIC])
        assignments, clusters, gone = Messages(), Messages(), set[str]()
        for _, after in changed:
            service, place = self.acceptance.accepted(after), after.place
            before = ruled.get(place, ())
            ruled[place] = [dataclasses.replace(one, service=service) for one in before]
            for old, new in zip(before, ruled[place], strict=True):
                assignments |= by_name(new.assignments(snapshot.options))
                if old.in_clusters != new.in_clusters:
                    clusters |= by_name(new.clusters(snapshot.options))
                if old.service.near != new.service.near:
                    gone |= by_name(old.assignments(snapshot.options)).keys()
        if lost := gone - assignments.keys():
            kinds[Kind.ENDPOINT] = {
                name: one for name, one in kinds[Kind.ENDPOINT].items() if name not in lost
            }
        for kind, made in ((Kind.ENDPOINT, assignments), (Kind.CLUSTER, clusters)):
            if made:
                kinds[kind] = kinds[kind] | made
        compiled = {**self.compiled, Pool.TRAFFIC: kinds}
        return dataclasses.replace(self, snapshot=snapshot, compiled=compiled, ruled=ruled)

    def with_routes(self, found: Rerouted, memo: Memo) -> Last:
        """Return the result after a change of routes to some hosts, for the same snapshot."""
        if found.virtual_services == self.index.virtual_services:
            return self
        before = self.compiled[Pool.TRAFFIC][Kind.ROUTE]
        made = dict(before)
        index = self.index.routed(found.virtual_services, found.difference)
        views = {scope: view.routed(index) for scope, view in self.views.items()}
        changed = found.routings(self.index, index)
        for view in views.values():
            tables = rerouted_tables(view, hosts(changed, view), made, memo)
            made.update((table.name, table) for table in tables)
        traffic = self.compiled[Pool.TRAFFIC] | {Kind.ROUTE: replaced(before, (), made)}
        requests = self.requests
        if found.is_of_connections:
            listeners = ScopeListeners(index, self.snapshot, memo)
            chosen = by_name(one for view in views.values() for one in listeners.of(view))
            traffic[Kind.LISTENER] = replaced(traffic[Kind.LISTENER], (), chosen)
            requests = listeners.requests(views)
        compiled = {**self.compiled, Pool.TRAFFIC: traffic}
        return dataclasses.replace(
            self, compiled=compiled, index=index, views=views, requests=requests
        )

    def with_callers(self, before: tuple[str, ...], memo: Memo) -> Last:
        """Return the result after a change of who takes the short way, for the same snapshot;
        ``before``: who took it."""
        if before == self.snapshot.short_way.callers:
            return self
        local = by_name(OfClients(self.snapshot, self.clients, memo).local())
        traffic = dict(self.compiled[Pool.TRAFFIC])
        traffic[Kind.LISTENER] = replaced(traffic[Kind.LISTENER], (), local)
        return dataclasses.replace(self, compiled={**self.compiled, Pool.TRAFFIC: traffic})

    def with_clients(self, clients: Clients, serving: frozenset[str], memo: Memo) -> Last:
        """Return the result after a change of workloads in scopes that there are, for the same
        snapshot."""
        if clients is self.clients:
            return dataclasses.replace(self, serving=serving)
        old, new = (OfClients(self.snapshot, these, memo) for these in (self.clients, clients))
        changed = {
            uid
            for uid in self.clients.keys() | clients.keys()
            if self.clients.get(uid) != clients.get(uid)
        }
        come = [client for uid, client in clients.items() if uid in changed]
        traffic, dns = dict(self.compiled[Pool.TRAFFIC]), dict(self.compiled[Pool.DNS])

        def replace(kind: Kind, before: Iterable[Message], after: Iterable[Message]) -> None:
            gone = by_name(before).keys()
            traffic[kind] = replaced(traffic[kind], gone, by_name(after))

        replace(Kind.CLUSTER, old.fixed_clusters(), new.fixed_clusters())
        replace(Kind.LISTENER, old.inbound(), new.inbound())
        replace(Kind.CLUSTER, old.tunneled_clusters(), new.tunneled_clusters())
        replace(Kind.LISTENER, old.local(), new.local())
        replace(Kind.ROUTE, old.tunneled_routes(), new.tunneled_routes())
        replace(Kind.ROUTE, old.inbound_routes(), new.inbound_routes())

        def listeners_of(client: Client) -> Iterator[Message]:
            return new.listeners(client, self.requests[client.scope])

        for kinds, listeners in ((traffic, listeners_of), (dns, new.dns_listeners)):
            gone = {
                name
                for name in kinds[Kind.LISTENER]
                if workload_of(name) in changed and not is_of_gateway(name)
            }
            made = by_name(one for each in come for one in listeners(each))
            kinds[Kind.LISTENER] = replaced(kinds[Kind.LISTENER], gone, made)
        limits = {LIMITS: new.limits(traffic[Kind.LISTENER])}
        traffic[Kind.RUNTIME] = replaced(traffic[Kind.RUNTIME], (), limits)
        compiled = {**self.compiled, Pool.TRAFFIC: traffic, Pool.DNS: dns}
        entrances = {
            uid: new.entrance(client) if uid in changed else self.entrances[uid]
            for uid, client in clients.items()
        }
        return dataclasses.replace(
            self, compiled=compiled, clients=clients, entrances=entrances, serving=serving
        )
