"""The whole: a snapshot, and the workloads that are served, to everything that proxies are told.

Pure but for what it remembers: equal inputs give the very objects that they gave before, so that
whoever comes after can tell by identity what has not changed.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf.message import Message

from meshd.compile.acceptance import as_accepted
from meshd.compile.envoy import shares
from meshd.compile.gateway import gateway
from meshd.compile.gateway.ports import GatewayPorts, gateway_ports
from meshd.compile.gateway.routes import gateway_route_configuration
from meshd.compile.gateway.secrets import Credentials, Need, UsedCredential
from meshd.compile.http.delegation import delegated
from meshd.compile.http.mirroring import mirror_cluster, mirror_listener
from meshd.compile.http.routes import http_ports, route_configuration
from meshd.compile.memo import Memo
from meshd.compile.names import missing_secret
from meshd.compile.policy import mutual_tls_timeout
from meshd.compile.policy.peer_authentication import peer_policy
from meshd.compile.policy.served import Ports, served_ports
from meshd.compile.scope import scopes
from meshd.compile.traffic import dns, inbound, outbound
from meshd.compile.traffic.scope_listeners import scope_clusters, scope_listeners
from meshd.compile.upstream.clusters import (
    PlannedCluster,
    black_hole_cluster,
    passthrough_cluster,
    service_clusters,
)
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.endpoints import service_assignments
from meshd.compile.upstream.proxy_protocol import announce_clients
from meshd.compile.upstream.rule_credentials import secrets_needed
from meshd.compile.upstream.shape import shape
from meshd.compile.upstream.tls import transport_sockets
from meshd.compile.upstream.tls_plan import TlsPlan
from meshd.compile.visibility import MeshIndex, View
from meshd.model.pool import LIMITS, Pool
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload


class Kind(enum.Enum):
    """The kinds of resources, in the order in which Envoy wants to learn of them."""

    RUNTIME = "envoy.service.runtime.v3.Runtime"
    CLUSTER = "envoy.config.cluster.v3.Cluster"
    ENDPOINT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
    LISTENER = "envoy.config.listener.v3.Listener"
    ROUTE = "envoy.config.route.v3.RouteConfiguration"


Compiled = dict[Kind, dict[str, Any]]
"""Messages by name. Which type of message it is follows from the kind."""


def identity_of(workload: Workload, options: MeshOptions) -> Identity:
    return Identity(options.trust_domain, workload.namespace, workload.service_account)


class Compiler:
    def __init__(self) -> None:
        self._memo = Memo()
        self.credentials: tuple[UsedCredential, ...] = ()
        """Those that what was compiled last needs, usable or not."""

    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Mapping[Pool, Compiled]:
        """For each pool. ``serving`` are uids of workloads whose namespaces are pinned: listeners
        can be opened there. Those that the snapshot does not know are passed over."""
        round_ = _Round(delegated(as_accepted(snapshot)), self._memo, frozenset(serving))
        traffic, dns_ = _by_name(round_.resources()), _by_name(round_.dns_resources())
        traffic[Kind.RUNTIME][LIMITS] = round_.limits(traffic[Kind.LISTENER])
        compiled = {Pool.TRAFFIC: traffic, Pool.DNS: dns_}
        self._memo.end_round()
        self.credentials = round_.credentials.used()
        return compiled


def _by_name(found: Iterable[tuple[Kind, Iterable[Message]]]) -> Compiled:
    compiled: Compiled = {kind: {} for kind in Kind}
    for kind, messages in found:
        names = "cluster_name" if kind is Kind.ENDPOINT else "name"
        compiled[kind].update((getattr(message, names), message) for message in messages)
    return compiled


@dataclasses.dataclass(frozen=True, slots=True)
class _Client:
    """A workload that is served, and the mesh as it sees it."""

    workload: Workload
    view: View
    gateway: GatewayPorts


class _Round:
    """One compilation."""

    def __init__(self, snapshot: Snapshot, memo: Memo, serving: frozenset[str]) -> None:
        self._snapshot = snapshot
        self._options = snapshot.options
        self._memo = memo
        self._mirrors = any(any(True for _ in one.mirrors()) for one in snapshot.virtual_services)
        index = MeshIndex.of(snapshot)
        found = scopes(snapshot)
        self.credentials = Credentials(snapshot.secrets, memo)
        self._views = {
            scope: index.view(scope) for scope in {found[uid] for uid in serving if uid in found}
        }
        gateways = gateway_ports(snapshot)
        self._clients = [
            _Client(workload, self._views[found[uid]], gateways.get(uid, GatewayPorts("", {})))
            for uid, workload in sorted(snapshot.workloads.items())
            if uid in serving
        ]
        served = served_ports(snapshot.services, index.rules)
        self._served: dict[str, Ports] = {
            client.workload.uid: served.get(client.workload.uid, {}) for client in self._clients
        }
        self._need_secrets()

    def _need_secrets(self) -> None:
        for client in self._clients:
            for need in client.gateway.secrets_needed(client.workload.namespace):
                self.credentials.need(need)
        for service, rules in self._ruled_services():
            for need in _secrets_needed(service, rules):
                self.credentials.need(need)

    def resources(self) -> Iterator[tuple[Kind, Iterable[Message]]]:
        yield Kind.CLUSTER, self._fixed_clusters()
        for client in self._clients:
            yield Kind.LISTENER, self._workload_listeners(client)
            yield Kind.ROUTE, self._gateway_routes(client)
        for view in self._views.values():
            yield from self._scope(view)
        yield Kind.LISTENER, self._inbound()
        yield Kind.ROUTE, self._inbound_routes()
        if self._mirrors:
            yield Kind.CLUSTER, (mirror_cluster(),)
            yield Kind.LISTENER, self._mirror_listener()
        for service, rules in self._ruled_services():
            yield from self._service(service, rules)
        yield Kind.SECRET, self.credentials.messages()

    def limits(self, listeners: Iterable[str]) -> Message:
        """``listeners``: names of all that there are."""
        names = tuple(listeners)
        counts = {
            client.workload.uid: shares.connections(client.workload, self._options)
            for client in self._clients
        }
        return self._memo.get("limits", (names, counts), lambda: shares.limits(names, counts))

    def dns_resources(self) -> Iterator[tuple[Kind, Iterable[Message]]]:
        options = self._options
        resolvers = self._snapshot.resolvers
        yield (
            Kind.CLUSTER,
            self._memo.each(
                "dns clusters",
                (options, resolvers),
                lambda: dns.clusters(options, resolvers, udp=True),
            ),
        )
        for workload in (client.workload for client in self._clients):
            yield Kind.LISTENER, self._dns_listener(workload)

    def _dns_listener(self, workload: Workload) -> Iterable[Message]:
        options = self._options
        resolver = dns.resolver_of(workload.namespace, self._snapshot.resolvers)
        return self._memo.each(
            ("workload dns", workload.uid),
            (_place(workload), resolver, options),
            lambda: iter((dns.workload_listener(workload, resolver, options),)),
        )

    def _fixed_clusters(self) -> Iterable[Message]:
        resolvers = self._snapshot.resolvers

        def make() -> Iterator[Message]:
            yield black_hole_cluster(self._options)
            yield passthrough_cluster(self._options)
            yield from dns.clusters(self._options, resolvers, udp=False)
            yield from inbound.inbound_clusters(self._served.values(), self._options)

        return self._memo.each("fixed clusters", (self._served, resolvers, self._options), make)

    def _inbound(self) -> Iterable[Message]:
        served, options = self._served, self._options
        return self._memo.each(
            "inbound", (served, options), lambda: inbound.shared_listeners(served, options)
        )

    def _inbound_routes(self) -> Iterable[Message]:
        served, options = self._served, self._options
        accounts = self._snapshot.gateway_accounts
        return self._memo.each(
            "inbound routes",
            (served, accounts, options),
            lambda: inbound.inbound_routes(served.values(), accounts, options),
        )

    def _mirror_listener(self) -> Iterable[Message]:
        options = self._options
        return self._memo.each("mirror", (options,), lambda: iter((mirror_listener(options),)))

    def _workload_listeners(self, client: _Client) -> Iterable[Message]:
        workload, options = client.workload, self._options
        identity = identity_of(workload, options)
        scope = client.view.scope.name
        ports = self._served[workload.uid]
        policy = peer_policy(self._snapshot.peer_authentications, workload, options.root_namespace)

        def make() -> Iterator[Message]:
            yield outbound.workload_listener(workload, identity, scope, options)
            yield inbound.workload_listener(workload, identity, ports, policy, options)

        what = (_place(workload), identity, scope, ports, policy, options)
        yield from self._memo.each(("workload", workload.uid), what, make)
        if client.gateway.ports:
            yield from gateway.workload_listeners(
                workload,
                identity,
                client.gateway,
                client.view.as_gateway(),
                options,
                self.credentials.is_served,
            )

    def _gateway_routes(self, client: _Client) -> Iterator[Message]:
        for name, port, servers in client.gateway.route_configurations():
            yield gateway_route_configuration(client.view.as_gateway(), name, port, servers)

    def _scope(self, view: View) -> Iterator[tuple[Kind, Iterable[Message]]]:
        key = view.scope.name
        snapshot = self._snapshot
        rules = (snapshot.virtual_services, snapshot.destination_rules, self._options)
        resolver = dns.resolver_of(view.scope.namespace, snapshot.resolvers)
        # A headless service's endpoints are what its listener matches.
        services = tuple(
            service if service.headless else shape(service) for service in view.services.values()
        )

        def listeners() -> Iterator[Message]:
            yield from scope_listeners(view, resolver, self._options)

        def routes() -> Iterator[Message]:
            for port in http_ports(view):
                yield route_configuration(view, port)

        yield Kind.CLUSTER, scope_clusters(key)
        yield (
            Kind.LISTENER,
            self._memo.each(("scope", key), (services, resolver, *rules), listeners),
        )
        yield Kind.ROUTE, self._memo.each(("routes", key), (services, *rules), routes)

    def _ruled_services(self) -> Iterator[tuple[ServiceRecord, RuleSet]]:
        """Each service with each set of rules that some client sees it under."""
        seen: set[tuple[str, str, str]] = set()
        gateways = {
            client.view.scope: client.view.as_gateway()
            for client in self._clients
            if client.gateway.ports
        }
        views = (*self._views.values(), *gateways.values())
        looked_at: list[tuple[View, Iterable[str]]] = [(view, view.services) for view in views]
        if self._mirrors:
            looked_at += [
                (view.of_copies(), sorted(view.services.keys() & view.mirrored())) for view in views
            ]
        for view, hosts in looked_at:
            for host in hosts:
                service, rules = view.services[host], view.rules(host)
                if (key := (host, service.apart, rules.variant)) not in seen:
                    seen.add(key)
                    yield service, rules

    def _service(
        self, service: ServiceRecord, rules: RuleSet
    ) -> Iterator[tuple[Kind, Iterable[Message]]]:
        options = self._options
        key = (service.host, service.apart, rules.variant)

        def clusters() -> Iterator[Message]:
            for planned in service_clusters(service, rules, options):
                plan = _with_usable(planned.tls, self.credentials.is_served)
                yield _with_transport(planned, plan, options.trust_domain)

        def assignments() -> Iterator[Message]:
            yield from service_assignments(service, rules).values()

        needed = [self.credentials.of(need.name) for need in _secrets_needed(service, rules)]
        usable = tuple((one.certificate is None, one.authority is None) for one in needed)
        shaped = (shape(service), rules, options, usable)
        yield Kind.CLUSTER, self._memo.each(("clusters", *key), shaped, clusters)
        yield Kind.ENDPOINT, self._memo.each(("endpoints", *key), (service, rules), assignments)


def _place(workload: Workload) -> tuple[object, ...]:
    """What of it is in a listener: neither readiness, labels nor addresses, which may change as
    they like."""
    host = workload.host
    patience = workload.annotations.get(mutual_tls_timeout.ANNOTATION)
    return workload.netns, host and (host.outbound_port, host.inbound_port), patience


def _secrets_needed(service: ServiceRecord, rules: RuleSet) -> Iterator[Need]:
    if rules.spec and rules.namespace:
        user = f"DestinationRule for {service.host}"
        yield from secrets_needed(rules.spec, rules.namespace, user)


def _with_usable(plan: TlsPlan, is_served: Callable[[str], bool]) -> TlsPlan:
    """With names that nobody serves in the place of secrets that cannot be served."""
    certificate, authority = (
        missing_secret(name) if name and not is_served(name) else name
        for name in (plan.certificate, plan.authority)
    )
    return msgspec.structs.replace(plan, certificate=certificate, authority=authority)


def _with_transport(
    planned: PlannedCluster, plan: TlsPlan, trust_domain: str
) -> cluster_pb2.Cluster:
    socket, matches = transport_sockets(plan, trust_domain)
    if socket is not None:
        planned.cluster.transport_socket.CopyFrom(socket)
    planned.cluster.transport_socket_matches.extend(matches)
    if planned.proxy_protocol:
        announce_clients(planned.cluster, planned.proxy_protocol)
    return planned.cluster
