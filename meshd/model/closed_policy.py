"""PeerAuthentications that are not in force, but without which no workload must be reached."""

from __future__ import annotations

from meshd.api.base import ObjectMeta
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)

_STRICT = PeerAuthenticationSpec(mtls=MutualTLS("STRICT"))


class ClosedPolicy(PeerAuthentication, frozen=True):
    """A policy that cannot be used.

    Nobody knows for which workloads and ports it was, so that it beats all other policies of its
    namespace: each workload there takes mutual TLS only, on all ports. In the root namespace, it
    also beats all others that are for the whole mesh.
    """

    @classmethod
    def named(cls, namespace: str, name: str) -> ClosedPolicy:
        """Return the replacement of the policy with a name."""
        return cls(metadata=ObjectMeta(name=name, namespace=namespace), spec=_STRICT)
