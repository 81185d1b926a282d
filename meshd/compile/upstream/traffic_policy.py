"""The DestinationRules' settings for one port of one subset.

After https://istio.io/latest/docs/reference/config/networking/destination-rule/.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.api.networking import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    LoadBalancerSettings,
    LocalityLbSetting,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TCPSettings,
    TrafficPolicy,
    TunnelSettings,
)
from meshd.api.protocol import Protocol
from meshd.compile.plan.origin import Origin
from meshd.compile.upstream.destination_rules import AT_GATEWAY, RuleSet
from meshd.compile.upstream.nearness import Client, in_effect
from meshd.model.service import Port, Resolution, ServiceRecord

_OF_PORTS: Final = {
    "load_balancer": "loadBalancer",
    "connection_pool": "connectionPool",
    "outlier_detection": "outlierDetection",
    "tls": "tls",
}
"""The parts of a traffic policy that a port may override, by their names in manifests."""
_OF_ANY_LEVEL: Final = {
    "tunnel": "tunnel",
    "proxy_protocol": "proxyProtocol",
    "retry_budget": "retryBudget",
}


class Policy(msgspec.Struct, frozen=True):
    """The settings that hold for one port of one subset."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    @property
    def consistent_hash(self) -> ConsistentHash | None:
        return self.load_balancer.consistent_hash if self.load_balancer else None

    def nearness(self, service: ServiceRecord, client: Client | None) -> LocalityLbSetting | None:
        """Return the setting that orders a client's endpoints; None: all are alike to it."""
        return in_effect(self.load_balancer, self.outlier_detection, service, client)

    @property
    def passthrough(self) -> bool:
        """Return whether connections go where the client wanted, without load balancing."""
        return self.load_balancer is not None and self.load_balancer.simple == "PASSTHROUGH"

    @property
    def tcp(self) -> TCPSettings:
        return (self.connection_pool and self.connection_pool.tcp) or TCPSettings()


def connects_to_original_destination(service: ServiceRecord, port: Port, policy: Policy) -> bool:
    """Return whether the client's own destination is used rather than one of the endpoints.

    A headless service's client has chosen an endpoint itself. With HTTP the host decides, so that
    requests can be routed and balanced.
    """
    if service.headless and not policy.passthrough:
        return not port.protocol.is_http
    return policy.passthrough or service.resolution is Resolution.NONE


def upstream_protocol(protocol: Protocol, policy: Policy) -> Protocol:
    """Return the protocol that is spoken to a port's endpoints."""
    http = policy.connection_pool and policy.connection_pool.http
    upgrade = http is not None and http.h2_upgrade_policy == "UPGRADE"
    return Protocol.HTTP2 if upgrade and protocol is Protocol.HTTP else protocol


def at_gateway(service: ServiceRecord, rules: RuleSet) -> RuleSet:
    """Return the rules for a gateway, whose clusters are others where it may not share those of
    workloads."""
    if not is_different_at_gateways(service, rules):
        return rules
    return msgspec.structs.replace(rules, variant=rules.variant + AT_GATEWAY, at_gateway=True)


def is_different_at_gateways(service: ServiceRecord, rules: RuleSet) -> bool:
    """Return whether a gateway may not share the clusters that workloads have."""
    subsets = ("", *(subset.name for subset in (rules.spec.subsets if rules.spec else ())))
    return any(
        port.protocol is Protocol.SNIFFED
        or connects_to_original_destination(
            service, port, effective_policy(rules, port.number, subset)
        )
        for port in service.ports
        for subset in subsets
    )


def effective_policy(rules: RuleSet, port: int, subset: str = "") -> Policy:
    """Return the rules' own settings, with those of the subset over them.

    Settings of a port replace all others at their level: what they leave out is at its default.
    Those that no port can have are the level's.
    """
    policy = _at_level(rules.policy, port, Policy())
    chosen = rules.subset(subset) if subset else None
    if chosen:
        policy = _at_level(chosen.traffic_policy, port, policy)
    return _as_wished(policy) if rules.sticky else policy


def policy_origins(rules: RuleSet, port: int, subset: str = "") -> tuple[tuple[str, Origin], ...]:
    """Return the field that sets each part of the effective policy, by the part's name."""
    found = _origins_at(rules.policy, port, rules.policy_origin, {})
    if chosen := rules.subset(subset) if subset else None:
        own = rules.origin_of(subset)
        place = own and Origin(own.key, f"{own.field}.trafficPolicy")
        found = _origins_at(chosen.traffic_policy, port, place, found)
    return tuple(sorted(found.items()))


def _origins_at(
    level: TrafficPolicy | None, port: int, place: Origin | None, below: dict[str, Origin]
) -> dict[str, Origin]:
    if level is None or place is None:
        return below
    own = {name: part for name, part in _OF_ANY_LEVEL.items() if getattr(level, name)}
    found = below | {part: Origin(place.key, f"{place.field}.{part}") for part in own.values()}
    entry, field = level.by_port.get(port), place.field
    if entry:
        field += f".portLevelSettings[{level.port_level_settings.index(entry)}]"
        found = {part: at for part, at in found.items() if part not in _OF_PORTS.values()}
    return found | {
        part: Origin(place.key, f"{field}.{part}")
        for name, part in _OF_PORTS.items()
        if getattr(entry or level, name)
    }


def _as_wished(policy: Policy) -> Policy:
    """Return the policy for one endpoint for each client address (``sessionAffinity:
    ClientIP``)."""
    asked = policy.load_balancer or LoadBalancerSettings()
    if asked.consistent_hash or asked.simple not in {None, "UNSPECIFIED"}:
        return policy
    hashing = ConsistentHash(use_source_ip=True)
    return msgspec.structs.replace(
        policy, load_balancer=msgspec.structs.replace(asked, simple=None, consistent_hash=hashing)
    )


def _at_level(level: TrafficPolicy | None, port: int, below: Policy) -> Policy:
    if level is None:
        return below
    whole = (
        level.tunnel or below.tunnel,
        level.proxy_protocol or below.proxy_protocol,
        level.retry_budget or below.retry_budget,
    )
    if entry := level.by_port.get(port):
        return Policy(
            entry.load_balancer,
            entry.connection_pool,
            entry.outlier_detection,
            entry.tls,
            *whole,
        )
    return Policy(
        level.load_balancer or below.load_balancer,
        level.connection_pool or below.connection_pool,
        level.outlier_detection or below.outlier_detection,
        level.tls or below.tls,
        *whole,
    )
