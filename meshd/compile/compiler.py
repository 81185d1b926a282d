"""Compiles a snapshot, for the workloads that are served, to all resources of the proxies.

The compiler is pure but for its memory: equal inputs give the very objects that they gave before,
so that later steps can tell by identity what has not changed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from google.protobuf.message import Message

from meshd.compile import messages
from meshd.compile.changes.way import change
from meshd.compile.clients import Client, Clients, OfClients
from meshd.compile.compiled import (
    Compiled,
    Kind,
    Last,
    Printed,
    Ruled,
    by_name,
    choosable,
    served_secrets,
)
from meshd.compile.envoy.clusters import cluster
from meshd.compile.gateway.ports import NOT_A_GATEWAY, gateway_ports
from meshd.compile.gateway.secrets import Credentials, Need, UsedCredential
from meshd.compile.http.asking import destinations, hosts_asked
from meshd.compile.http.delegation import delegated
from meshd.compile.http.mirroring import mirror_upstream
from meshd.compile.memo import Memo
from meshd.compile.names import authority_secret, certificate_secret
from meshd.compile.policy.acceptance import Acceptance
from meshd.compile.policy.authorization import authorization, policies_of
from meshd.compile.policy.peer_authentication import peer_policy
from meshd.compile.policy.served import served_ports
from meshd.compile.shared.client_tables import client_tables
from meshd.compile.shared.gateways import gateway_listeners, gateway_tables
from meshd.compile.shared.listeners import ScopeListeners
from meshd.compile.shared.tables_of_all import CommonTables
from meshd.compile.shortcuts.gateways import with_gateways
from meshd.compile.shortcuts.guarded import Guarded
from meshd.compile.shortcuts.reached import Reached
from meshd.compile.shortcuts.scopes import with_scopes
from meshd.compile.shortcuts.services import with_services
from meshd.compile.traffic.scope_listeners import scope_upstreams
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.rule_credentials import secrets_needed
from meshd.compile.upstream.shape import shape
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope, scopes
from meshd.compile.visibility.view import View
from meshd.model.pool import LIMITS, Pool
from meshd.model.service import Place, ServiceRecord
from meshd.model.snapshot import Snapshot

_log: Final = logging.getLogger(__name__)


class Compiler:
    def __init__(self) -> None:
        self._memo = Memo()
        self._last: Last | None = None
        self._fault = ""
        """The fault of a shortcut that was logged last."""

    @property
    def credentials(self) -> tuple[UsedCredential, ...]:
        """Return the credentials that the last compiled configuration needs, usable or not."""
        return self._last.credentials.used() if self._last else ()

    @property
    def entrances(self) -> Mapping[str, messages.Entrance]:
        """Return what the listeners for incoming connections depend on that were compiled last, by
        the workloads' uids. A compilation after which none differs leaves the very mapping."""
        return self._last.entrances if self._last else {}

    @property
    def reached(self) -> Reached | None:
        """Return how clients reach services by what was compiled last; None: nothing was."""
        last = self._last
        return Reached(last.snapshot, last.acceptance, last.ruled) if last else None

    @property
    def guarded(self) -> Guarded | None:
        """Return who may send what to workloads by what was compiled last; None: nothing was."""
        last = self._last
        return Guarded(last.snapshot, last.clients, last.compiled[Pool.TRAFFIC]) if last else None

    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Mapping[Pool, Compiled]:
        """Return the resources of each pool.

        ``serving``: uids of the workloads whose namespaces are pinned, so that listeners can be
        opened there. Uids that the snapshot does not know are ignored.

        If nothing has changed since the last compilation but some services and rules for them,
        routes, Gateways, policies, the content of Secrets, some workloads of this node and who
        takes the short way, only what depends on these is made; the mappings of all other kinds are
        those of the last compilation. ``changes`` decides it. Where a shortcut fails, that is
        logged, and all is compiled.
        """
        snapshot, wanted = delegated(snapshot), frozenset(serving)
        last, self._last = self._last, None  # An exception leaves nothing to go on from.
        try:
            made = last and self._gone_on(last, snapshot, wanted)
        except Exception as error:
            # If this fails, too, it is no fault of the shortcut.
            made = self._compiled(snapshot, wanted)
            self._say(error)
        self._last = made or self._compiled(snapshot, wanted)
        return self._last.compiled

    def _say(self, error: Exception) -> None:
        """Log a fault of a shortcut, unless it is the one that was logged last."""
        fault = f"a shortcut of the compiler failed, by a fault of meshd: {error!r}"
        if fault != self._fault:
            self._fault = fault
            extra = {"MESHD_EVENT": "shortcut-failed"}
            _log.error("%s; all was compiled instead", fault, exc_info=error, extra=extra)

    def _gone_on(self, last: Last, snapshot: Snapshot, serving: frozenset[str]) -> Last | None:
        """Return the result after a change of which not everything depends; None: all does."""
        found = change(last, snapshot, serving)
        if found is None:
            return None
        memo = self._memo.aside()
        made = dataclasses.replace(last, acceptance=found.acceptance)
        made = made.with_secrets(snapshot.secrets, memo)
        made = made and with_services(made, found.services.services, snapshot, memo)
        if made is None:
            return None
        made = made.with_endpoints(found.services.endpoints, snapshot)
        made = with_scopes(made.with_routes(found.routes, memo), found.scopes, memo)
        if made and found.reaches_gateways:
            made = with_gateways(made, found.clients, memo)
        made = made and made.with_clients(found.clients, serving, memo)
        made = made and made.with_callers(last.snapshot.short_way.callers, memo)
        return made and made.with_requests(last, memo)

    def _compiled(self, snapshot: Snapshot, serving: frozenset[str]) -> Last:
        acceptance = Acceptance.of(snapshot)
        round_ = _Round(acceptance.applied(snapshot), self._memo, serving)
        traffic, dns_ = _by_kind(round_.resources()), _by_kind(round_.dns_resources())
        traffic[Kind.CHOOSABLE] = choosable(round_.views, traffic[Kind.ROUTE], {})
        traffic[Kind.RUNTIME][LIMITS] = round_.limits(traffic[Kind.LISTENER])
        self._memo.end_round()
        ruled: dict[Place, list[Ruled]] = defaultdict(list)
        for one in round_.ruled:
            ruled[one.service.place].append(one)
        compiled = {Pool.TRAFFIC: traffic, Pool.DNS: dns_}
        return Last(
            snapshot,
            serving,
            compiled,
            round_.index,
            round_.views,
            acceptance,
            ruled,
            round_.clients,
            round_.entrances(),
            round_.credentials,
            round_.requests,
        )


def _by_kind(found: Iterable[tuple[Kind, Iterable[Printed]]]) -> Compiled:
    compiled: Compiled = {kind: {} for kind in Kind}
    for kind, made in found:
        compiled[kind] |= by_name(made)
    return compiled


class _Round:
    """One compilation."""

    def __init__(self, snapshot: Snapshot, memo: Memo, serving: frozenset[str]) -> None:
        self._snapshot = snapshot
        self._options = snapshot.options
        self._memo = memo
        self._mirrors = any(any(True for _ in one.mirrors()) for one in snapshot.virtual_services)
        self.index = index = MeshIndex.of(snapshot, memo)
        found = scopes(snapshot)
        self.credentials = Credentials(snapshot.secrets, memo)
        self.views = {
            scope: View.of(index, scope)
            for scope in {found[uid] for uid in serving if uid in found}
        }
        root = Scope(self._options.root_namespace)
        self._asked = View.of(index, root).of_copies() if self._options.providers else None
        """As extension providers are seen; None: there are none."""
        several = len({scope.namespace for scope in self.views}) > 1
        self._tables = CommonTables(index, memo) if several and index.is_seen_alike else None
        self._listeners = ScopeListeners(index, snapshot, memo)
        self.requests = self._listeners.requests(self.views)
        self.clients = _clients(snapshot, serving, found, index)
        self._of_clients = OfClients(snapshot, self.clients, memo)
        ruled = tuple(self._ruled_services())
        self._need_secrets(ruled)
        self.ruled = tuple(
            Ruled(service, rules, self._served_secrets(service, rules)) for service, rules in ruled
        )
        """Each service with each set of rules that holds for it in the view of some client."""

    def entrances(self) -> Mapping[str, messages.Entrance]:
        return {uid: self._of_clients.entrance(one) for uid, one in self.clients.items()}

    def _need_secrets(self, ruled: Iterable[tuple[ServiceRecord, RuleSet]]) -> None:
        for client in self.clients.values():
            for need in client.gateway.secrets_needed(client.workload.namespace):
                self.credentials.need(need)
        for service, rules in ruled:
            for need in _secrets_needed(service, rules):
                self.credentials.need(need)

    def resources(self) -> Iterator[tuple[Kind, Iterable[Printed]]]:
        made = self._of_clients
        yield Kind.CLUSTER, made.fixed_clusters()
        yield Kind.CLUSTER, made.tunneled_clusters()
        for client in self.clients.values():
            yield Kind.LISTENER, made.listeners(client, self.requests[client.scope])
            if client.gateway.ports:
                view = self.views[client.scope]
                yield Kind.LISTENER, gateway_listeners(client, view, self.credentials.is_served)
                yield Kind.ROUTE, gateway_tables(client, view)
        for view in self.views.values():
            yield from self._scope(view)
        yield Kind.LISTENER, made.inbound()
        yield Kind.LISTENER, made.local()
        yield Kind.LISTENER, made.tunneling()
        yield Kind.ROUTE, made.tunneled_routes()
        yield Kind.ROUTE, made.inbound_routes()
        if self._mirrors:
            yield Kind.CLUSTER, (cluster(mirror_upstream()),)
            yield Kind.LISTENER, self._mirror_listener()
        if self._asked is not None:
            yield Kind.CLUSTER, messages.asking_clusters()
            yield Kind.LISTENER, messages.asking_listeners(self._options)
            asked = destinations(self._options.providers, self._asked)
            yield Kind.ROUTE, messages.asking_tables(asked)
        for ruled in self.ruled:
            yield from self._service(ruled)
        yield Kind.SECRET, served_secrets(self.credentials, self._memo)

    def limits(self, listeners: Iterable[str]) -> Message:
        """Return the limits of connections. ``listeners``: the names of all listeners."""
        return self._of_clients.limits(listeners)

    def dns_resources(self) -> Iterator[tuple[Kind, Iterable[Message]]]:
        options = self._options
        resolvers = self._snapshot.resolvers
        yield (
            Kind.CLUSTER,
            self._memo.call("dns clusters", messages.dns_clusters, options, resolvers),
        )
        for client in self.clients.values():
            yield Kind.LISTENER, self._of_clients.dns_listeners(client)

    def _mirror_listener(self) -> Iterable[Message]:
        return self._memo.call("mirror", messages.copy_listeners, self._options)

    def _scope(self, view: View) -> Iterator[tuple[Kind, Iterable[Printed]]]:
        yield Kind.CLUSTER, map(cluster, scope_upstreams(view.scope.name))
        yield Kind.LISTENER, self._listeners.of(view)
        tables = self._tables
        yield Kind.ROUTE, tables.tables(view) if tables else client_tables(view, self._memo)

    def _ruled_services(self) -> Iterator[tuple[ServiceRecord, RuleSet]]:
        seen: set[tuple[str, str, str]] = set()
        gateways = {
            client.scope: self.views[client.scope].as_gateway()
            for client in self.clients.values()
            if client.gateway.ports
        }
        views = (*self.views.values(), *gateways.values())
        looked_at: list[tuple[View, Iterable[str]]] = [(view, view.services) for view in views]
        known: set[tuple[int, int]] = set()
        if self._mirrors:
            looked_at += [
                (view.of_copies(), sorted(view.services.keys() & view.mirrored())) for view in views
            ]
        if self._asked is not None:
            looked_at.append((self._asked, hosts_asked(self._options.providers, self._asked)))
        for view, hosts in looked_at:
            for host in hosts:
                service, rules = view.services[host], view.rules(host)
                if (same := (id(service), id(rules))) in known:
                    continue
                known.add(same)  # The view keeps both alive, so their ids stay theirs.
                if (key := (*service.place, rules.variant)) not in seen:
                    seen.add(key)
                    yield service, rules

    def _service(self, ruled: Ruled) -> Iterator[tuple[Kind, Iterable[Printed]]]:
        service, rules = ruled.service, ruled.rules
        key = (*service.place, rules.variant)
        options, call = self._options, self._memo.call
        shaped, secrets = shape(service), ruled.secrets
        yield (
            Kind.CLUSTER,
            call(("clusters", *key), messages.service_clusters, shaped, rules, options, secrets),
        )
        yield (
            Kind.ENDPOINT,
            call(("endpoints", *key), messages.service_assignments, service, rules, options),
        )

    def _served_secrets(self, service: ServiceRecord, rules: RuleSet) -> frozenset[str]:
        return frozenset(
            name
            for need in _secrets_needed(service, rules)
            for name in (certificate_secret(need.name), authority_secret(need.name))
            if self.credentials.is_served(name)
        )


def _clients(
    snapshot: Snapshot, serving: Collection[str], found: Mapping[str, Scope], index: MeshIndex
) -> Clients:
    gateways = gateway_ports(snapshot)
    served = served_ports(snapshot.services, index.rules, serving)
    policies, options = policies_of(snapshot), snapshot.options
    peers, root = snapshot.peer_authentications, options.root_namespace
    return {
        uid: Client(
            workload,
            found[uid],
            gateways.get(uid, NOT_A_GATEWAY),
            served.get(uid, {}),
            peer_policy(peers, workload, root),
            authorization(policies, workload, options),
        )
        for uid, workload in sorted(snapshot.workloads.items())
        if uid in serving
    }


def _secrets_needed(service: ServiceRecord, rules: RuleSet) -> Iterator[Need]:
    if rules.spec and rules.namespace:
        user = f"DestinationRule for {service.host}"
        yield from secrets_needed(rules.spec, rules.namespace, user)
