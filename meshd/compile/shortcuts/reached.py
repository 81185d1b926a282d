"""How clients reach the workloads of their own node, and what of that follows from a policy alone.

A workload whose policy disabled mutual TLS and comes to require it refuses what its clients speak
until they are told to speak mutual TLS. That takes no compilation: of the services that were
compiled last, the clusters and endpoints that lead to it are made anew. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from meshd.compile.compiled import Ruled
from meshd.compile.envoy.clusters import cluster
from meshd.compile.envoy.printed_messages import PrintedMessage
from meshd.compile.policy.acceptance import Acceptance
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.upstream.upstreams import refusing_passthrough
from meshd.model.service import Endpoint, Place, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

Changed: TypeAlias = Mapping[str, tuple[PeerPolicy, PeerPolicy]]
"""The policy that was compiled and the stricter one, by the workload's uid."""
_NO_PORT: Final = 0
"""A port that no policy names."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What was compiled last, as far as it says how clients reach services. Told by identity."""

    snapshot: Snapshot
    """With mutual TLS for endpoints whether they accept it or not."""
    acceptance: Acceptance
    ruled: Mapping[Place, Sequence[Ruled]]

    def under(self, changed: Changed) -> Iterator[PrintedMessage]:
        """Yield the clusters and assignments that differ under stricter policies."""
        opening = {uid: pair for uid, pair in changed.items() if _requires_more(*pair)}
        options = self.snapshot.options
        for before, after in self._leading_to(opening):
            yield from _differing(before.clusters(options), after.clusters(options))
            yield from _differing(before.assignments(options), after.assignments(options))

    def _leading_to(self, changed: Changed) -> Iterator[tuple[Ruled, Ruled]]:
        """Yield the services some of whose endpoints take mutual TLS under stricter policies."""
        if not changed:
            return
        for record in self.snapshot.services.values():
            taking = {
                _where(one)
                for one in record.endpoints
                if one.workload in changed and self._takes_it(one, *changed[one.workload])
            }
            for before in self.ruled.get(record.place, ()) if taking else ():
                yield before, _taking(before, taking)

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


def _taking(ruled: Ruled, places: set[tuple[str, str, int, int]]) -> Ruled:
    service: ServiceRecord = msgspec.structs.replace(
        ruled.service,
        endpoints=tuple(
            msgspec.structs.replace(one, mutual_tls=True) if _where(one) in places else one
            for one in ruled.service.endpoints
        ),
    )
    return dataclasses.replace(ruled, service=service)
