"""Secrets that DestinationRules name. Each proxy reads those of its own namespace only.

A rule that selects workloads is for them. A rule without a selector is for any number of workloads
without such a Secret: its Secrets are for gateways, and for others it says nothing about TLS. After
https://istio.io/latest/docs/reference/config/networking/destination-rule/#ClientTLSSettings.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from meshd.api.networking import (
    ClientTLSSettings,
    DestinationRuleSpec,
    PortTrafficPolicy,
    TrafficPolicy,
)
from meshd.compile.gateway.secrets import Need

_PLAIN = ClientTLSSettings(mode="DISABLE")


def credential_names(spec: DestinationRuleSpec) -> Iterator[str]:
    """Yield the names as they are written."""
    return (tls.credential_name or "" for tls in _with_names(spec))


def _with_names(spec: DestinationRuleSpec) -> Iterator[ClientTLSSettings]:
    for policy in (spec.traffic_policy, *(subset.traffic_policy for subset in spec.subsets)):
        for part in (policy, *policy.port_level_settings) if policy else ():
            if part.tls and part.tls.mode in {"SIMPLE", "MUTUAL"} and part.tls.credential_name:
                yield part.tls


def secrets_needed(spec: DestinationRuleSpec, namespace: str, user: str) -> Iterator[Need]:
    """Yield the secrets that a proxy in ``namespace`` needs."""
    for tls in _with_names(spec):
        if name := full_name(tls.credential_name or "", namespace):
            yield Need(name, user, tls.mode == "MUTUAL", not tls.insecure_skip_verify)


def full_name(name: str, namespace: str) -> str:
    """Return ``NAMESPACE/NAME`` of the Secret that a proxy in ``namespace`` reads; empty: it may
    not."""
    owner, slash, short = name.rpartition("/")
    return f"{namespace}/{short}" if not slash or owner == namespace else ""


def without_credentials(spec: DestinationRuleSpec) -> DestinationRuleSpec:
    """Return the rule for clients that do not read its Secrets: plaintext, if it names any."""
    return msgspec.structs.replace(
        spec,
        traffic_policy=_plain(spec.traffic_policy),
        subsets=tuple(
            msgspec.structs.replace(subset, traffic_policy=_plain(subset.traffic_policy))
            for subset in spec.subsets
        ),
    )


def _plain(policy: TrafficPolicy | None) -> TrafficPolicy | None:
    if policy is None:
        return None
    ports = tuple(_of_port(settings) for settings in policy.port_level_settings)
    return msgspec.structs.replace(policy, tls=_tls(policy.tls), port_level_settings=ports)


def _of_port(settings: PortTrafficPolicy) -> PortTrafficPolicy:
    return msgspec.structs.replace(settings, tls=_tls(settings.tls))


def _tls(settings: ClientTLSSettings | None) -> ClientTLSSettings | None:
    return _PLAIN if settings and settings.credential_name else settings
