"""Objects that are not put in force, and those in force in their place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshd.api.base import Key, Object, ObjectMeta
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.api.read import label_problem, subdomain_problem

_STRICT = PeerAuthenticationSpec(mtls=MutualTLS("STRICT"))


def without(objects: Mapping[Key, Object], why: Callable[[Object], str]) -> dict[Key, Object]:
    """Return the objects in force; ``why`` returns an empty text for those that stay.

    A PeerAuthentication may have been what closes its namespace, so its whole namespace is closed.
    The services of a DestinationRule would be reached without its TLS settings: see ``closed``.
    """
    return {
        key: found
        for key, one in objects.items()
        if (found := _closed(one) if why(one) else one) is not None
    }


def closed(whole: Mapping[Key, Object], left: Mapping[Key, Object]) -> tuple[tuple[str, str], ...]:
    """Return namespace and host of each DestinationRule of which nothing is left."""
    return tuple(
        (one.metadata.namespace, one.spec.host)
        for key, one in whole.items()
        if isinstance(one, DestinationRule) and key not in left
    )


def about(value: Any) -> tuple[str, str] | None:
    """Return namespace and host of a DestinationRule that cannot be used, as far as it says them.

    ``value`` is the rule as plain values, which nobody has judged.
    """
    metadata, spec = (
        found if isinstance(found := value.get(name), dict) else {} for name in ("metadata", "spec")
    )
    namespace, host = metadata.get("namespace"), spec.get("host")
    if not isinstance(namespace, str) or not isinstance(host, str) or not host:
        return None
    return None if label_problem(namespace) else (namespace, host)


def in_place_of(kind: str, namespace: str, name: str) -> Object | None:
    """Return what replaces an object of which only the name is known."""
    if kind != PeerAuthentication.KIND or label_problem(namespace) or subdomain_problem(name):
        return None
    return PeerAuthentication(metadata=ObjectMeta(name=name, namespace=namespace), spec=_STRICT)


def _closed(found: Object) -> Object | None:
    meta = found.metadata
    return in_place_of(found.KIND, meta.namespace, meta.name)
