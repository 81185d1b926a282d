"""Policies of security.istio.io.

After https://istio.io/latest/docs/reference/config/security/.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from meshd.api.base import Object, Strict, WorkloadSelector

MutualTLSMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTLS(Strict, frozen=True):
    mode: MutualTLSMode = "UNSET"


class PeerAuthenticationSpec(Strict, frozen=True):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[int, MutualTLS] | None = None


class PeerAuthentication(Object, frozen=True):
    GROUP: ClassVar[str] = "security.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1", "v1")
    KIND: ClassVar[str] = "PeerAuthentication"
    PLURALS: ClassVar[tuple[str, ...]] = ("peerauthentications", "peerauthentication", "pa")

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()

    def is_for_the_mesh(self, root_namespace: str) -> bool:
        """Return whether it is for the workloads of all namespaces."""
        return self.metadata.namespace == root_namespace and self.spec.selector is None
