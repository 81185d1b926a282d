"""Objects that are not to be put in force, and what is in force in their place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshd.config.read import label_problem, subdomain_problem
from meshd.model.base import Key, Object, ObjectMeta
from meshd.model.destinations import DestinationRule
from meshd.model.security import MutualTLS, PeerAuthentication, PeerAuthenticationSpec

_STRICT = PeerAuthenticationSpec(mtls=MutualTLS("STRICT"))


def without(objects: Mapping[Key, Object], why: Callable[[Object], str]) -> dict[Key, Object]:
    """``why``: empty for what stays.

    A PeerAuthentication may have been what closes its namespace, so all of that is closed. What a
    DestinationRule is about would be spoken to without its TLS settings: see ``closed``.
    """
    return {
        key: found
        for key, one in objects.items()
        if (found := _closed(one) if why(one) else one) is not None
    }


def closed(whole: Mapping[Key, Object], left: Mapping[Key, Object]) -> tuple[tuple[str, str], ...]:
    """Namespace and host of each DestinationRule of which nothing is left."""
    return tuple(
        (one.metadata.namespace, one.spec.host)
        for key, one in whole.items()
        if isinstance(one, DestinationRule) and key not in left
    )


def in_place_of(kind: str, namespace: str, name: str) -> Object | None:
    """Of an object of which no more can be told."""
    if kind != PeerAuthentication.KIND or label_problem(namespace) or subdomain_problem(name):
        return None
    return PeerAuthentication(metadata=ObjectMeta(name=name, namespace=namespace), spec=_STRICT)


def _closed(found: Object) -> Object | None:
    meta = found.metadata
    return in_place_of(found.KIND, meta.namespace, meta.name)
