"""The pods that an object asks for, and the way they are replaced. Pure."""

from __future__ import annotations

import hashlib
import math
from typing import Final

import msgspec

from meshd.api.base import Object
from meshd.api.kubernetes.types import (
    DaemonSet,
    Deployment,
    Pod,
    PodTemplate,
    RollingUpdate,
    StatefulSet,
)
from meshd.model.pod import OwnerPlan, Strategy

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' for names: no vowels, so no words, and nothing that looks like something else."""
_DEPLOYMENT: Final = RollingUpdate(max_surge="25%", max_unavailable="25%")
_DAEMON_SET: Final = RollingUpdate(max_surge=0, max_unavailable=1)


def template_of(found: Object) -> PodTemplate | None:
    """Return the template of the object's pods; None if it asks for none."""
    if isinstance(found, Pod):
        return PodTemplate(spec=found.spec, metadata=found.metadata)
    if isinstance(found, Deployment | StatefulSet | DaemonSet):
        return found.spec.template
    return None


def pod_names(found: Object, given: bytes) -> tuple[str, ...]:
    """Return names in the order in which the pods are started.

    ``given`` is what the pods get beside the template: pods that get something else have other
    names, where they can run beside the former ones.
    """
    name, namespace = found.metadata.name, found.metadata.namespace
    if isinstance(found, Pod):
        return (name,)
    if isinstance(found, StatefulSet):
        return tuple(f"{name}-{index}" for index in range(found.spec.replicas))
    if not isinstance(found, Deployment | DaemonSet):
        return ()
    revision = name_hash(10, msgspec.json.encode(found.spec.template).decode(), given.decode())
    if isinstance(found, DaemonSet):
        return (f"{name}-{revision[:5]}",)
    return tuple(
        f"{name}-{revision}-{name_hash(5, namespace, name, str(index))}"
        for index in range(found.spec.replicas)
    )


def owner_of(found: Object) -> OwnerPlan:
    return OwnerPlan(name=str(found.key), strategy=_strategy(found))


def _strategy(found: Object) -> Strategy:
    if isinstance(found, Deployment):
        asked = found.spec.strategy
        if asked.type == "Recreate":
            return Strategy(min_ready_seconds=found.spec.min_ready_seconds)
        return _rolling(
            asked.rolling_update, _DEPLOYMENT, found.spec.replicas, found.spec.min_ready_seconds
        )
    if isinstance(found, DaemonSet):
        asked = found.spec.update_strategy.rolling_update
        return _rolling(asked, _DAEMON_SET, 1, found.spec.min_ready_seconds)
    if isinstance(found, StatefulSet):
        return Strategy(order="ordered", min_ready_seconds=found.spec.min_ready_seconds)
    return Strategy()


def _rolling(asked: RollingUpdate, default: RollingUpdate, replicas: int, ready: int) -> Strategy:
    surge = default.max_surge if asked.max_surge is None else asked.max_surge
    unavailable = (
        default.max_unavailable if asked.max_unavailable is None else asked.max_unavailable
    )
    more, fewer = math.ceil(_share(surge, replicas)), math.floor(_share(unavailable, replicas))
    return Strategy(
        order="rolling",
        surge=more,
        unavailable=fewer if more or fewer else 1,  # otherwise no pod could be replaced
        min_ready_seconds=ready,
    )


def _share(value: int | str | None, replicas: int) -> float:
    """Return a number of pods, or that of ``25%`` of them."""
    if isinstance(value, str):
        return int(value.removesuffix("%")) * replicas / 100
    return value or 0


def name_hash(length: int, *parts: str) -> str:
    """Return letters and digits for a name; the same for the same parts."""
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest())
    letters: list[str] = []
    for _ in range(length):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
