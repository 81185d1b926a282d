"""How nodes are told that their server has lost configuration. Pure.

They are told a policy that closes the mesh, in place of all others, and that is marked: what is
not told any more was not deleted. Nodes that know nothing of the mark take the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from meshd.api.base import Key, Object, ObjectMeta
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.base.printable import printable

LOST: Final = "meshd.io/lost"
"""Annotates the policy; the value is the paths of what was lost."""
_NAME: Final = "meshd-lost"


def told(
    objects: Mapping[Key, Object], lost: Iterable[str], root_namespace: str
) -> dict[Key, Object]:
    """Return what nodes are told in place of the objects that are left.

    Policies that are left would open what those that were lost closed.
    """
    meta = ObjectMeta(
        name=_NAME, namespace=root_namespace, annotations={LOST: printable(", ".join(lost))}
    )
    strict = PeerAuthentication(
        metadata=meta, spec=PeerAuthenticationSpec(mtls=MutualTLS("STRICT"))
    )
    left = {key: one for key, one in objects.items() if not isinstance(one, PeerAuthentication)}
    return {**left, strict.key: strict}


def heard(objects: Iterable[Object]) -> tuple[str, ...]:
    """Return the paths, on the server, of what it has lost; empty: it has lost nothing."""
    return tuple(
        paths
        for one in objects
        if isinstance(one, PeerAuthentication)
        if (paths := one.metadata.annotations.get(LOST)) is not None
    )
