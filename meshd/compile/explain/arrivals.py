"""Explains what becomes of a request, or a connection, at the endpoints of its clusters. Pure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshd import wire
from meshd.compile.explain.authorization import Facts, Verdict
from meshd.compile.explain.chain_choice import Connection
from meshd.compile.explain.closed import of_service, why_closed
from meshd.compile.explain.connections import (
    requests_of,
    tell_destination,
    tell_short_way,
)
from meshd.compile.explain.endpoints import tell_endpoints, tell_tls
from meshd.compile.explain.judging import arriving, is_certified, judged
from meshd.compile.explain.telling import Telling
from meshd.compile.explain.tunnels import tell_tunnels
from meshd.compile.explain.wanted import Wanted
from meshd.compile.names import parse_cluster
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.upstreams import Upstream
from meshd.compile.policy.peer_authentication import peer_policy
from meshd.compile.policy.served import Ports, served_ports
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.compile.visibility.view import View
from meshd.matching.request import Request
from meshd.model.service import Endpoint, ServiceRecord
from meshd.model.short_way import Requests
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload

CLOSED: Final = "denied: the connection is closed"


def denied(status: int) -> str:
    """Return the verdict on a request that is not allowed."""
    return f"denied: {status}"


def tell_judgement(
    telling: Telling,
    snapshot: Snapshot,
    place: Workload | Endpoint,
    facts: Facts,
    asked: Request | None,
) -> Verdict:
    """Tell what policies make of a request at a workload; None: of a connection."""
    verdict = judged(snapshot, place, facts, asked)
    if verdict.token.claims is not None:
        believed = f"believed by {verdict.token.origin}, if its signature is right"
        telling.tell("token", believed, verdict.token.origin)
    if verdict.asked:
        telling.tell(wire.ASKED_STAGE, str(verdict.asked), verdict.asked.rule.origin)
    if verdict.why != "no policy":
        telling.tell("authorization", str(verdict), verdict.origin)
    return verdict


@dataclasses.dataclass
class Arrivals:
    """Tells of the endpoints of one cluster after the other."""

    telling: Telling
    snapshot: Snapshot
    view: View
    source: Workload
    identity: str
    wanted: Wanted
    connection: Connection
    received: Mapping[str, Request]
    """The request as it arrives, by upstream; empty: it is not HTTP."""
    closed: str = ""
    """A rule that is not in force, and therefore closes what it is about."""
    judged: list[Verdict] = dataclasses.field(default_factory=list[Verdict])
    """What each endpoint makes of it."""

    @property
    def refused(self) -> str:
        """Return the verdict if no endpoint takes it; empty: one does."""
        if not self.judged or any(verdict.allowed for verdict in self.judged):
            return ""
        return denied(self.judged[0].status) if self.received else CLOSED

    def endpoints(self, name: str) -> Iterator[str]:
        """Tell of the endpoints of a cluster, and yield those that are chosen."""
        parsed = parse_cluster(name)
        service = self.view.services.get(getattr(parsed, "host", ""))
        if service is None:
            self.telling.tell(
                "endpoints", f"{name}: {why_closed(name) or 'there is no such service'}"
            )
            return
        rules = self.view.rules(service.host)
        if rule := self.view.closing_rule(service.host):
            why = f"{name}: closed, because {rule.key} is not in force"
            self.telling.tell("endpoints", why, Origin(rule.key, "spec.host"))
            self.closed = str(rule.key)
            return
        if service.closed:
            self.telling.tell("endpoints", f"{name}: {why_closed(name, service)}")
            self.closed = of_service(service)
            return
        upstreams = service_upstreams(service, rules, self.view.options)
        upstream = next((one for one in upstreams if str(one.name) == name), None)
        if upstream is None:
            self.telling.tell("endpoints", f"{name}: there is no such subset or port")
            return
        for _, origin in upstream.set_at:
            self.telling.tell("policy", str(origin), origin)
        assignments = service_assignments(service, rules, self.view.options)
        asked = f"{self.wanted.host}:{getattr(parsed, 'port', self.wanted.port)}"
        for told in (
            tell_tls(upstream.tls, self.identity),
            *tell_tunnels(service, rules, upstream, self.view.options),
            *tell_endpoints(upstream, assignments, asked, self.wanted.chosen),
        ):
            self.telling.tell(told.stage, told.detail)
            if told.endpoint:
                sent = requests_of(self.view, upstream, assignments, self.connection)
                self._tell_destination(service, upstream, told.endpoint, sent)
                self._judge(service, upstream, told.endpoint)
                yield told.endpoint

    def _tell_destination(
        self, service: ServiceRecord, upstream: Upstream, chosen: str, sent: Requests
    ) -> None:
        """Tell what the endpoint's own proxy does with it, where that is one of this node."""
        for place in service.endpoints_by_port.get(getattr(upstream.name, "port", 0), ()):
            workload = self.snapshot.workloads.get(place.workload)
            if workload is not None and f"{place.address}:{place.port}" == chosen:
                self.telling.tell("inbound", self._accepted(workload, place, upstream, sent))

    def _judge(self, service: ServiceRecord, upstream: Upstream, chosen: str) -> None:
        """Tell what policies about the endpoint make of it, whichever node it runs on."""
        received = self.received.get(str(upstream.name))
        for place in service.endpoints_by_port.get(getattr(upstream.name, "port", 0), ()):
            if f"{place.address}:{place.port}" != chosen:
                continue
            peer = self.identity if is_certified(upstream.tls.mode, place) else ""
            facts = arriving(self.source, place, peer, self.connection)
            self.judged.append(tell_judgement(self.telling, self.snapshot, place, facts, received))

    def _accepted(
        self, workload: Workload, place: Endpoint, upstream: Upstream, sent: Requests
    ) -> str:
        options, ports = self.view.options, self._served.get(workload.uid, {})
        if upstream.short_way and place.inside:
            return tell_short_way(ports, place.port, sent, judged=place.inside.judged)
        connection = msgspec.structs.replace(
            self.connection, address=place.address, port=place.port, workload=workload.uid
        )
        return tell_destination(
            workload,
            ports,
            peer_policy(self.snapshot.peer_authentications, workload, options.root_namespace),
            options,
            connection,
            mutual_tls=is_certified(upstream.tls.mode, place),
        )

    @functools.cached_property
    def _served(self) -> Mapping[str, Ports]:
        return served_ports(self.snapshot.services, self.view.index.rules)
