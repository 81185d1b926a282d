"""Decides which connections a workload accepts: PeerAuthentication, the most specific per question.

The order is Istio's: the workload's own (by selector), then its namespace's, then the root
namespace's; UNSET asks the next one, and the default is PERMISSIVE. What stands for a policy that
is not in force comes before all others of its namespace.
https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.compile.plan.origin import Origin
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.service import Endpoint
from meshd.model.workload import Workload

_CLOSED: Final = "not in force, so mutual TLS only"


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
    origin: Origin | None = None
    """Of ``mode``; None: it is the default."""
    port_origins: Mapping[int, Origin] = dataclasses.field(default_factory=dict[int, Origin])

    def mode_of(self, port: int) -> Mode:
        return self.port_modes.get(port, self.mode)

    def origin_of(self, port: int) -> Origin | None:
        """Return what says the mode of a port; None: nothing does."""
        return self.port_origins.get(port, self.origin)


def peer_policy(
    policies: Iterable[PeerAuthentication], workload: Workload | Endpoint, root_namespace: str
) -> PeerPolicy:
    chosen = list(_most_specific_first(policies, workload, root_namespace))
    said = ((mode, policy) for policy in chosen if (mode := _mode(policy)))
    mode, by = next(said, (Mode.PERMISSIVE, None))
    ports: dict[int, Mode] = {}
    origins: dict[int, Origin] = {}
    # Port levels count in the workload's own policy only: elsewhere nobody knows the ports.
    for policy in chosen:
        if policy.spec.selector is not None:
            for port, tls in (policy.spec.port_level_mtls or {}).items():
                ports[port] = mode if tls.mode == "UNSET" else Mode(tls.mode)
                if tls.mode != "UNSET":
                    origins[port] = Origin(policy.key, f"spec.portLevelMtls.{port}.mode")
            break
    return PeerPolicy(mode, ports, by and _origin(by), origins)


def closed_by(policy: PeerPolicy, other: PeerPolicy) -> PeerPolicy:
    """Return a policy with mutual TLS only where it or the other one wants that, and else as it is.

    It is the very policy that was given if the other one closes nothing.
    """
    ports = sorted(policy.port_modes.keys() | other.port_modes.keys())
    by_port = {port: _closing(policy, other, port) for port in ports}
    default = other if Mode.STRICT is other.mode is not policy.mode else policy
    if default is policy and all(one is policy for one in by_port.values()):
        return policy
    told = {
        port: one
        for port, one in by_port.items()
        if port in one.port_modes or one.mode is not default.mode
    }
    return PeerPolicy(
        default.mode,
        {port: one.mode_of(port) for port, one in told.items()},
        default.origin,
        {port: origin for port, one in told.items() if (origin := one.origin_of(port))},
    )


def _closing(policy: PeerPolicy, other: PeerPolicy, port: int) -> PeerPolicy:
    """Return which of two policies says the mode of a port."""
    return other if Mode.STRICT is other.mode_of(port) is not policy.mode_of(port) else policy


def _origin(policy: PeerAuthentication) -> Origin:
    closed = isinstance(policy, ClosedPolicy)
    return Origin(policy.key, _CLOSED if closed else "spec.mtls.mode")


def _mode(policy: PeerAuthentication) -> Mode | None:
    mtls = policy.spec.mtls
    return Mode(mtls.mode) if mtls and mtls.mode != "UNSET" else None


def _most_specific_first(
    policies: Iterable[PeerAuthentication], workload: Workload | Endpoint, root_namespace: str
) -> Iterator[PeerAuthentication]:
    oldest_first = sorted(policies, key=_rank)
    own = [p for p in oldest_first if p.metadata.namespace == workload.namespace]
    if own and isinstance(own[0], ClosedPolicy):
        yield own[0]
        return
    yield from (p for p in own if p.spec.selector and _selects(p, workload))
    yield from (p for p in own if not p.spec.selector)
    if workload.namespace != root_namespace:
        yield from (p for p in oldest_first if p.is_for_the_mesh(root_namespace))


def _rank(policy: PeerAuthentication) -> tuple[bool, str, str]:
    meta = policy.metadata
    return not isinstance(policy, ClosedPolicy), meta.creation_timestamp or "", meta.name


def _selects(policy: PeerAuthentication, workload: Workload | Endpoint) -> bool:
    wanted = policy.spec.selector.match_labels if policy.spec.selector else {}
    return wanted.items() <= workload.labels.items()


def is_disabled_somewhere(policies: Iterable[PeerAuthentication]) -> bool:
    return any(Mode.DISABLE in _modes(policy) for policy in policies)


def _modes(policy: PeerAuthentication) -> Iterator[str]:
    yield policy.spec.mtls.mode if policy.spec.mtls else Mode.PERMISSIVE
    yield from (tls.mode for tls in (policy.spec.port_level_mtls or {}).values())
