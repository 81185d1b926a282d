"""How clients reach the workloads of their own node, and what of that follows from a policy alone.

A workload whose policy disabled mutual TLS and comes to require it refuses what its clients speak
until they are told to speak mutual TLS. One that comes to judge what it is sent is reached by the
short way as one that judges, or, if it asks for the name in TLS hellos, not at all. Neither takes a
compilation: of the services that were compiled last, the clusters and endpoints that lead to it are
made anew. A service that is closed by now, or of which a rule is, is led nowhere in its turn. Pure.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

import msgspec

from meshd.api.base import Key
from meshd.compile.compiled import Ruled
from meshd.compile.envoy.clusters import cluster
from meshd.compile.envoy.printed_messages import PrintedMessage
from meshd.compile.policy.acceptance import Acceptance
from meshd.compile.policy.authorization import asks_server_name
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.traffic.inbound_routes import NOBODY, Guards
from meshd.compile.upstream.upstreams import black_hole, refusing_passthrough
from meshd.model.service import Endpoint, Place, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

Changed: TypeAlias = Mapping[str, tuple[PeerPolicy, PeerPolicy]]
"""The policy that was compiled and the stricter one, by the workload's uid."""
Closed: TypeAlias = AbstractSet[tuple[str, str]]
"""Hosts and namespaces of services."""
_NO_PORT: Final = 0
"""A port that no policy names."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What was compiled last, as far as it says how clients reach services. Told by identity."""

    snapshot: Snapshot
    """With mutual TLS for endpoints whether they accept it or not."""
    acceptance: Acceptance
    ruled: Mapping[Place, Sequence[Ruled]]

    def under(self, changed: Changed, judging: Guards = NOBODY) -> Iterator[PrintedMessage]:
        """Yield the clusters and assignments that differ under stricter policies; ``judging``: the
        workloads that judge otherwise than was compiled."""
        opening = {uid: pair for uid, pair in changed.items() if _requires_more(*pair)}
        options = self.snapshot.options
        near = {uid: rules for uid, rules in judging.items() if uid in self.acceptance.near}
        for before, after in self._leading_to(opening, near):
            yield from _differing(before.clusters(options), after.clusters(options))
            yield from _differing(before.assignments(options), after.assignments(options))

    def without(self, closed: Closed, rules: AbstractSet[Key]) -> Iterator[PrintedMessage]:
        """Yield clusters that lead nowhere in place of those of services.

        ``closed``: hosts and namespaces of services that are closed by now; ``rules``: the keys of
        DestinationRules that are, of those that were open.
        """
        if not closed and not rules:
            return
        for one in itertools.chain.from_iterable(self.ruled.values()):
            service = one.service
            is_closed = (service.host, service.namespace) in closed
            if not service.closed and (is_closed or not rules.isdisjoint(one.rules.keys)):
                yield from map(self._nowhere, one.clusters(self.snapshot.options))

    def _nowhere(self, before: PrintedMessage) -> PrintedMessage:
        upstream = black_hole(self.snapshot.options)
        return PrintedMessage.of(cluster(msgspec.structs.replace(upstream, name=before.name)))

    def _leading_to(self, changed: Changed, judging: Guards) -> Iterator[tuple[Ruled, Ruled]]:
        """Yield the services some of whose endpoints take mutual TLS under stricter policies, or
        judge what comes by the short way."""
        if not changed and not judging:
            return
        for record in self.snapshot.services.values():
            taking = {
                _where(one)
                for one in record.endpoints
                if one.workload in changed and self._takes_it(one, *changed[one.workload])
            }
            if taking or any(one.workload in judging for one in record.endpoints):
                for before in self.ruled.get(record.place, ()):
                    yield before, _closed(before, taking, judging)

    def _takes_it(self, endpoint: Endpoint, before: PeerPolicy, after: PeerPolicy) -> bool:
        return (
            before.mode_of(endpoint.port) is Mode.DISABLE is not after.mode_of(endpoint.port)
        ) and self.acceptance.accepts(endpoint)


def _differing(
    before: Iterable[PrintedMessage], after: Iterable[PrintedMessage]
) -> Iterator[PrintedMessage]:
    known = {one.name: one for one in before}
    return (one for one in after if one != known.get(one.name))


def closed_passthrough(options: MeshOptions) -> PrintedMessage | None:
    """Return what closes the way out of the mesh in place of the cluster for it; None if it is
    closed."""
    if options.outbound_policy == "REGISTRY_ONLY":
        return None
    return PrintedMessage.of(cluster(refusing_passthrough(options)))


def _requires_more(before: PeerPolicy, after: PeerPolicy) -> bool:
    """Return whether mutual TLS was disabled on some port on which it is not any more."""
    ports = (_NO_PORT, *before.port_modes, *after.port_modes)
    return any(before.mode_of(one) is Mode.DISABLE is not after.mode_of(one) for one in ports)


def _where(endpoint: Endpoint) -> tuple[str, str, int, int]:
    return endpoint.workload, endpoint.address, endpoint.port, endpoint.service_port


def _closed(ruled: Ruled, taking: Container[tuple[str, str, int, int]], judging: Guards) -> Ruled:
    """Return a service with mutual TLS to some endpoints, and some that judge what comes by the
    short way, or are not reached by it."""

    def closed(one: Endpoint) -> Endpoint:
        if one.inside is not None and (rules := judging.get(one.workload)) is not None:
            named = asks_server_name(rules)
            inside = None if named else msgspec.structs.replace(one.inside, judged=True)
            one = msgspec.structs.replace(one, inside=inside)
        return msgspec.structs.replace(one, mutual_tls=True) if _where(one) in taking else one

    service: ServiceRecord = msgspec.structs.replace(
        ruled.service, endpoints=tuple(map(closed, ruled.service.endpoints))
    )
    return dataclasses.replace(ruled, service=service)
