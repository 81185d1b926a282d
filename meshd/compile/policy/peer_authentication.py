"""Decides which connections a workload accepts: PeerAuthentication, the most specific per question.

The order is Istio's: the workload's own (by selector), then its namespace's, then the root
namespace's; UNSET asks the next one, and the default is PERMISSIVE.
https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping

from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.model.service import Endpoint
from meshd.model.workload import Workload


class Mode(enum.StrEnum):
    DISABLE = "DISABLE"
    """Plain traffic only; TLS, if any, is the application's."""
    PERMISSIVE = "PERMISSIVE"
    """Mutual TLS of the mesh and plain traffic."""
    STRICT = "STRICT"
    """Mutual TLS of the mesh only."""


@dataclasses.dataclass(frozen=True, slots=True)
class PeerPolicy:
    """The connections that one workload accepts."""

    mode: Mode
    port_modes: Mapping[int, Mode]

    def mode_of(self, port: int) -> Mode:
        return self.port_modes.get(port, self.mode)


def peer_policy(
    policies: Iterable[PeerAuthentication], workload: Workload | Endpoint, root_namespace: str
) -> PeerPolicy:
    chosen = list(_most_specific_first(policies, workload, root_namespace))
    mode = next((mode for policy in chosen if (mode := _mode(policy))), Mode.PERMISSIVE)
    ports: dict[int, Mode] = {}
    # Port levels count in the workload's own policy only: elsewhere nobody knows the ports.
    for policy in chosen:
        if policy.spec.selector is not None:
            for port, tls in (policy.spec.port_level_mtls or {}).items():
                ports.setdefault(port, mode if tls.mode == "UNSET" else Mode(tls.mode))
            break
    return PeerPolicy(mode, ports)


def _mode(policy: PeerAuthentication) -> Mode | None:
    mtls = policy.spec.mtls
    return Mode(mtls.mode) if mtls and mtls.mode != "UNSET" else None


def _most_specific_first(
    policies: Iterable[PeerAuthentication], workload: Workload | Endpoint, root_namespace: str
) -> Iterator[PeerAuthentication]:
    oldest_first = sorted(
        policies, key=lambda p: (p.metadata.creation_timestamp or "", p.metadata.name)
    )
    own = [p for p in oldest_first if p.metadata.namespace == workload.namespace]
    yield from (p for p in own if p.spec.selector and _selects(p, workload))
    yield from (p for p in own if not p.spec.selector)
    if workload.namespace != root_namespace:
        yield from (
            p
            for p in oldest_first
            if p.metadata.namespace == root_namespace and not p.spec.selector
        )


def _selects(policy: PeerAuthentication, workload: Workload | Endpoint) -> bool:
    wanted = policy.spec.selector.match_labels if policy.spec.selector else {}
    return wanted.items() <= workload.labels.items()


def is_disabled_somewhere(policies: Iterable[PeerAuthentication]) -> bool:
    return any(Mode.DISABLE in _modes(policy) for policy in policies)


def _modes(policy: PeerAuthentication) -> Iterator[str]:
    yield policy.spec.mtls.mode if policy.spec.mtls else Mode.PERMISSIVE
    yield from (tls.mode for tls in (policy.spec.port_level_mtls or {}).values())
