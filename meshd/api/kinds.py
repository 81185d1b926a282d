"""The registry of kinds, which maps API objects to types."""

from __future__ import annotations

from typing import Final

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Object
from meshd.api.kubernetes.types import (
    ConfigMap,
    DaemonSet,
    Deployment,
    Namespace,
    Pod,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
)
from meshd.api.networking import (
    DestinationRule,
    Gateway,
    ServiceEntry,
    VirtualService,
    WorkloadEntry,
)
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.service_entry.types import WorkloadGroup

STORED: Final[tuple[type[Object], ...]] = (
    Namespace,
    ServiceAccount,
    Service,
    Secret,
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    PeerAuthentication,
    AuthorizationPolicy,
    RequestAuthentication,
)
"""Kinds that the mesh's configuration consists of, in the order in which they are applied."""

TESTBED_ONLY: Final[tuple[type[Object], ...]] = (
    ConfigMap,
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
)
"""Kinds that only something which runs workloads can do anything with."""

ALL: Final = STORED + TESTBED_ONLY

BY_NAME: Final[dict[str, type[Object]]] = {
    name: kind for kind in ALL for name in (kind.KIND.lower(), *kind.PLURALS)
}
"""What people type (``vs``, ``virtualservices``) to the kind, all in lower case."""


def find_kind(group: str, kind: str) -> type[Object] | None:
    """Return the type for an API group ("" is Kubernetes' core group) and a kind."""
    return next((known for known in ALL if (group, kind) == (known.GROUP, known.KIND)), None)
