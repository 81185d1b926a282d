"""The places where the requests and connections of a match enter: port, client and gateway."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.api.gateway.types import MESH, gateway_name
from meshd.api.virtual_service.types import (
    HTTPMatchRequest,
    L4MatchAttributes,
    TLSMatchAttributes,
    VirtualService,
)

Match = HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes


class Entrances(msgspec.Struct, frozen=True):
    """The places where a match can hold."""

    port: int = 0
    """0: any."""
    namespace: str = ""
    """The namespace of clients; empty: any."""
    labels: frozenset[tuple[str, str]] = frozenset()
    """Labels that clients must have."""
    gateways: frozenset[str] = frozenset()
    """``NAMESPACE/NAME`` or ``mesh``; empty: all to which the VirtualService is bound."""

    def covers(self, narrow: Entrances) -> bool:
        """Return whether these places include ``narrow``."""
        return (
            self.port in {0, narrow.port}
            and self.namespace in {"", narrow.namespace}
            and self.labels <= narrow.labels
            and (not self.gateways or frozenset() < narrow.gateways <= self.gateways)
        )


ALL: Final = Entrances()


def entrances_of(match: Match, namespace: str, bound: frozenset[str]) -> Entrances:
    """Return the places where a match holds.

    ``namespace`` is its VirtualService's, ``bound`` are the latter's gateways.
    """
    return Entrances(
        match.port or 0,
        match.source_namespace or "",
        frozenset(match.source_labels.items()),
        full_names(match.gateways, namespace) or bound,
    )


def bound_gateways(service: VirtualService) -> frozenset[str]:
    """Return the gateways of a VirtualService; none for a delegate, for which its roots' count."""
    if service.is_delegate:
        return frozenset()
    return full_names(service.spec.gateways or (MESH,), service.metadata.namespace)


def full_names(names: Iterable[str], namespace: str) -> frozenset[str]:
    """Return the full names of gateways that an object of a namespace names."""
    return frozenset(gateway_name(name, namespace) for name in names)
