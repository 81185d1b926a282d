"""Objects that are not to be put in force, and what is in force in their place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshd.config.read import label_problem, subdomain_problem
from meshd.model.base import Key, Object, ObjectMeta
from meshd.model.security import MutualTLS, PeerAuthentication, PeerAuthenticationSpec

_STRICT = PeerAuthenticationSpec(mtls=MutualTLS("STRICT"))


def without(objects: Mapping[Key, Object], why: Callable[[Object], str]) -> dict[Key, Object]:
    """``why``: empty for what stays.

    A PeerAuthentication may have been what closes its namespace, so all of that is closed.
    """
    return {
        key: found
        for key, one in objects.items()
        if (found := _closed(one) if why(one) else one) is not None
    }


def in_place_of(kind: str, namespace: str, name: str) -> Object | None:
    """Of an object of which no more can be told."""
    if kind != PeerAuthentication.KIND or label_problem(namespace) or subdomain_problem(name):
        return None
    return PeerAuthentication(metadata=ObjectMeta(name=name, namespace=namespace), spec=_STRICT)


def _closed(found: Object) -> Object | None:
    meta = found.metadata
    return in_place_of(found.KIND, meta.namespace, meta.name)
