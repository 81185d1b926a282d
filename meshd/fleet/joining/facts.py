"""Settings that all nodes of a mesh must share, and how a node's differ from a server's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from meshd.api.gateway.types import GatewaySelection
from meshd.settings import Settings

SettingPath = tuple[str, ...]
"""Of a setting in ``meshd.yaml``."""


class MeshFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, as a server tells them."""

    trust_domain: str
    domain: str
    root_namespace: str
    service_cidr: str
    gateway_selection: Literal["any-namespace", "own-namespace"] | None = None
    """What the setting may be for agents that know no other value; None: it is another one, or the
    server's version does not say."""
    gateways: GatewaySelection | None = None
    """The setting; None: the server's version does not say, or only above."""

    @classmethod
    def of(cls, settings: Settings) -> MeshFacts:
        mesh = settings.mesh
        selection = mesh.gateway_selection
        return cls(
            trust_domain=settings.identity.trust_domain,
            domain=mesh.domain,
            root_namespace=mesh.root_namespace,
            service_cidr=mesh.service_cidr,
            gateway_selection=None if selection == "declared-gateways" else selection,
            gateways=selection,
        )

    @property
    def by_path(self) -> Mapping[SettingPath, str | None]:
        return {
            ("identity", "trust_domain"): self.trust_domain,
            ("mesh", "domain"): self.domain,
            ("mesh", "root_namespace"): self.root_namespace,
            ("mesh", "service_cidr"): self.service_cidr,
            ("mesh", "gateway_selection"): self.gateways or self.gateway_selection,
        }


def differing(ours: MeshFacts, theirs: MeshFacts) -> dict[SettingPath, str]:
    """Return the settings that differ from the server's, with the server's values."""
    own = ours.by_path
    return {
        path: value
        for path, value in theirs.by_path.items()
        if value is not None and value != own[path]
    }


def difference(ours: MeshFacts, theirs: MeshFacts, server: str) -> str:
    """Return the settings that differ as a problem of the node; empty: none do."""
    found = differing(ours, theirs)
    if not found:
        return ""
    texts = (f"{'.'.join(path)} is {ours.by_path[path]}, not {found[path]}" for path in found)
    return (
        f"settings of this node differ from those of server {server}, so that both judge the same"
        f" configuration differently: {'; '.join(texts)}; set them as there in meshd.yaml and"
        " restart meshd"
    )
