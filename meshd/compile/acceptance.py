"""Decides to which endpoints of the mesh clients speak plaintext.

Mutual TLS is for endpoints that accept it: where a workload's proxy serves its port, and no policy
disables it. A port that a Gateway opens is not one of those; there the Gateway decides the
protocol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from meshd.compile.gateway.ports import opened_ports, place_of
from meshd.compile.policy.peer_authentication import Mode, is_disabled_somewhere, peer_policy
from meshd.model.service import MUTUAL_TLS, TLS_MODE, Endpoint
from meshd.model.snapshot import Snapshot


def as_accepted(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with plaintext for endpoints that do not accept mutual TLS."""
    refusals = _Refusals(
        snapshot, opened_ports(snapshot), is_disabled_somewhere(snapshot.peer_authentications)
    )
    if not refusals.opened and not refusals.disabled:
        return snapshot
    services = {
        host: msgspec.structs.replace(service, endpoints=tuple(map(refusals.apply, places)))
        if any(map(refusals.hold, places := service.endpoints))
        else service
        for host, service in snapshot.services.items()
    }
    return msgspec.structs.replace(snapshot, services=services)


@dataclasses.dataclass(frozen=True, slots=True)
class _Refusals:
    snapshot: Snapshot
    opened: Mapping[str, frozenset[int]]
    """Ports of gateways, by place."""
    disabled: bool
    """Some policy disables mutual TLS for somebody."""

    def apply(self, endpoint: Endpoint) -> Endpoint:
        return (
            msgspec.structs.replace(endpoint, mutual_tls=False) if self.hold(endpoint) else endpoint
        )

    def hold(self, endpoint: Endpoint) -> bool:
        if not endpoint.mutual_tls:
            return False
        return self._is_a_gateways(endpoint) or (self.disabled and self._is_disabled(endpoint))

    def _is_a_gateways(self, endpoint: Endpoint) -> bool:
        """Return whether a port is a Gateway's; as in Istio, a label of the endpoint wins where it
        has one."""
        opened = endpoint.port in self.opened.get(place_of(endpoint), ())
        return opened and endpoint.labels.get(TLS_MODE) != MUTUAL_TLS

    def _is_disabled(self, endpoint: Endpoint) -> bool:
        root = self.snapshot.options.root_namespace
        policy = peer_policy(self.snapshot.peer_authentications, endpoint, root)
        return policy.mode_of(endpoint.port) is Mode.DISABLE
