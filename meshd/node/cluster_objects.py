"""Judges what the API server of a cluster has, each object only when it is another one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Namespace, Service
from meshd.api.object_fields import kind_of, name_of, namespace_of
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.config import admission, withheld
from meshd.config.merging import Followed
from meshd.config.withheld import Closed
from meshd.model.listed import SERVICE_NAME

_OPEN: Final = frozenset({Namespace.KIND, Service.KIND})
"""Kinds whose absence opens nothing."""


class Judged(msgspec.Struct, frozen=True):
    """What becomes of one object: it is in force, or another one is in place of it, or nothing."""

    value: JsonObject
    key: Key
    problem: str = ""
    """Why it is not in force; empty: it is."""
    found: Object | None = None
    closed: Closed | None = None
    is_lost: bool = False
    """It is not known what it may have closed."""


def judged(value: JsonObject) -> Judged:
    """Return what becomes of an object.

    A policy that cannot be used is replaced by its closed one, and hosts that an object of Istio's
    is about are closed. A Service of Kubernetes is left out: kube-proxy leads to it.
    """
    key = Key(kind_of(value), namespace_of(value), name_of(value))
    try:
        one = admission.admit(value)
    except InvalidInputError as error:
        problem = f"{key} of the API server is not in force: {error}"
    else:
        found = _by_slices(one) if isinstance(one, Service) else one
        return Judged(value, found.key, found=found)
    if key.kind in _OPEN:
        return Judged(value, key, problem)
    if policy := withheld.in_place_of(key.kind, key.namespace, key.name):
        return Judged(value, key, problem, found=policy)
    closed = withheld.closed_value(value)
    is_lost = closed is None and withheld.is_lost(value)
    return Judged(value, key, problem, closed=closed, is_lost=is_lost)


def _by_slices(service: Service) -> Service:
    """Return a Service that has the endpoints of its slices, whatever selected those."""
    selector = {SERVICE_NAME: service.metadata.name}
    spec = msgspec.structs.replace(service.spec, selector=selector)
    return msgspec.structs.replace(service, spec=spec)


class Judging:
    """Remembers what became of each object."""

    def __init__(self) -> None:
        self._known: dict[Key, Judged] = {}

    def admitted(self, values: Sequence[JsonObject]) -> tuple[Followed, tuple[str, ...]]:
        """Return the objects, and why others are not in force."""
        before, self._known = self._known, {}
        for value in values:
            key = Key(kind_of(value), namespace_of(value), name_of(value))
            known = before.get(key)
            same = known is not None and known.value == value
            self._known[key] = known if known is not None and same else judged(value)
        every = self._known.values()
        followed = Followed(
            {one.key: one.found for one in every if one.found},
            tuple(one.closed for one in every if one.closed),
            tuple(f"{one.key} of the API server" for one in every if one.is_lost),
            tuple(one.key for one in every if one.problem and one.key.kind not in _OPEN),
        )
        return followed, tuple(one.problem for one in every if one.problem)
