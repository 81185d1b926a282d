"""Decides to which endpoints of the mesh clients speak plaintext.

Mutual TLS is for endpoints that accept it: where a workload's proxy serves its port, and no policy
disables it. A port that a Gateway opens is not one of those; there the Gateway decides the
protocol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import msgspec

from meshd.api.gateway.types import Gateway, GatewaySelection
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.compile.gateway.ports import opened_ports, place_of, selecting
from meshd.compile.policy.peer_authentication import Mode, is_disabled_somewhere, peer_policy
from meshd.compile.policy.short_way import Near, reachable, with_short_way
from meshd.model.service import MUTUAL_TLS, TLS_MODE, Endpoint, Place, ServiceRecord
from meshd.model.snapshot import Snapshot


def as_accepted(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with plaintext for endpoints that do not accept mutual TLS."""
    return Acceptance.of(snapshot).applied(snapshot)


@dataclasses.dataclass(frozen=True, slots=True)
class Acceptance:
    """The facts that decide whether endpoints accept mutual TLS."""

    policies: tuple[PeerAuthentication, ...]
    root_namespace: str
    gateways: tuple[Gateway, ...]
    gateway_selection: GatewaySelection
    opened: Mapping[str, frozenset[int]]
    """Ports of gateways, by place."""
    disabled: bool
    """Some policy disables mutual TLS for somebody."""
    near: Mapping[str, Near]
    """Workloads that may be reached by the short way, by uid."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Acceptance:
        policies = snapshot.peer_authentications
        return cls(
            policies,
            snapshot.options.root_namespace,
            snapshot.gateways,
            snapshot.options.gateway_selection,
            opened_ports(snapshot),
            is_disabled_somewhere(policies),
            reachable(snapshot),
        )

    def under(self, snapshot: Snapshot) -> Acceptance:
        """Return the same under the policies and Gateways of another snapshot, and with its short
        way. Services that gateways may depend on count as they were, unless Gateways differ."""
        policies, near = snapshot.peer_authentications, reachable(snapshot)
        if snapshot.gateways != self.gateways:
            return Acceptance.of(snapshot)
        if policies == self.policies and near == self.near:
            return self
        disabled = is_disabled_somewhere(policies)
        return dataclasses.replace(self, policies=policies, disabled=disabled, near=near)

    def differing(self, other: Acceptance, services: Iterable[ServiceRecord]) -> set[Place]:
        """Return the services of which not the same endpoints accept mutual TLS under both."""
        looked_at = services
        if self.policies == other.policies or not (self.disabled or other.disabled):
            places = self.opened.keys() | other.opened.keys()
            opened = {one for one in places if self.opened.get(one) != other.opened.get(one)}
            if not opened:
                return set()
            looked_at = (
                one for one in services if not opened.isdisjoint(map(place_of, one.endpoints))
            )
        return {one.place for one in looked_at if self.accepted(one) != other.accepted(one)}

    def reaching(self, other: Acceptance, services: Iterable[ServiceRecord]) -> set[Place]:
        """Return the services with endpoints of workloads to which the short way is not the same
        under both."""
        if self.near == other.near:
            return set()
        uids = self.near.keys() | other.near.keys()
        changed = {uid for uid in uids if self.near.get(uid) != other.near.get(uid)}
        return {
            one.place
            for one in services
            if any(place.workload in changed for place in one.endpoints)
        }

    def applied(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with plaintext for endpoints that do not accept mutual TLS, and with
        the short way to those that are reached by it."""
        if not self.opened and not self.disabled and not self.near:
            return snapshot
        services = {host: self.accepted(service) for host, service in snapshot.services.items()}
        return msgspec.structs.replace(snapshot, services=services)

    def accepted(self, service: ServiceRecord) -> ServiceRecord:
        """Return a service with plaintext for endpoints that do not accept mutual TLS, and with the
        short way to those that are reached by it."""
        places = service.endpoints
        if any(map(self.hold, places)):
            places = tuple(map(self.apply, places))
        near = False
        if self.near and service.may_be_near:
            places = with_short_way(places, self.near)
            near = any(place.inside for place in places)
        if places is service.endpoints:
            return service
        return msgspec.structs.replace(service, endpoints=places, near=near)

    def depends_on(self, service: ServiceRecord) -> bool:
        """Return whether ports of gateways may depend on the endpoints of a service."""
        return bool(self.gateways) and any(
            not place.workload or selecting(self.gateways, place, self.gateway_selection)
            for place in service.endpoints
        )

    def accepts(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint accepts mutual TLS if no policy disables it."""
        return endpoint.mutual_tls and not self._is_a_gateways(endpoint)

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
        policy = peer_policy(self.policies, endpoint, self.root_namespace)
        return policy.mode_of(endpoint.port) is Mode.DISABLE
