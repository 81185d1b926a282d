"""Decides which pods of an owner are started and stopped next, while others replace them. Pure.

After https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#update-strategies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from meshd.model.pod import Strategy


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """One running pod."""

    uid: str
    current: bool
    """Whether its plan is the wanted one."""
    available: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """Uids of pods to start and stop. A step with neither waits for pods, or is the end."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


def next_step(strategy: Strategy, wanted: Sequence[str], pods: Sequence[Standing]) -> Step:
    """Return the next step; ``wanted`` is in the order in which pods are started."""
    if strategy.order == "ordered":
        return _ordered(wanted, pods)
    if strategy.order == "rolling":
        return _rolling(strategy, wanted, pods)
    if outdated := _outdated(pods):
        return Step(stop=tuple(pod.uid for pod in outdated))
    return Step(start=_missing(wanted, pods))


def is_done(wanted: Sequence[str], pods: Sequence[Standing]) -> bool:
    available = {pod.uid for pod in pods if pod.available}
    return not _outdated(pods) and available == set(wanted)


def _rolling(strategy: Strategy, wanted: Sequence[str], pods: Sequence[Standing]) -> Step:
    """Return a step that stays within ``surge`` above the wanted number and ``unavailable`` below
    it."""
    room = len(wanted) + strategy.surge - len(pods)
    if room > 0 and (missing := _missing(wanted, pods)):
        return Step(start=missing[:room])
    least = len(wanted) - strategy.unavailable
    late = sum(pod.current and not pod.available for pod in pods)
    outdated = sorted(_outdated(pods), key=lambda pod: pod.available)
    removable = max(len(pods) - least - late, 0)
    spare = max(sum(pod.available for pod in pods) - least, 0)
    useless = sum(not pod.available for pod in outdated)
    return Step(stop=tuple(pod.uid for pod in outdated[: min(removable, useless + spare)]))


def _ordered(wanted: Sequence[str], pods: Sequence[Standing]) -> Step:
    """Return a step for pods one after another: started from the lowest ordinal, replaced from the
    highest.

    A former pod that is not available is replaced without waiting for it.
    """
    by_uid = {pod.uid: pod for pod in pods}
    for uid in wanted:
        pod = by_uid.get(uid)
        if pod is None:
            return Step(start=(uid,))
        if pod.current and not pod.available:
            return Step()
    surplus = sorted(by_uid.keys() - set(wanted), key=_ordinal)
    outdated = [uid for uid in wanted if not by_uid[uid].current]
    return Step(stop=tuple((outdated + surplus)[-1:]))


def _ordinal(uid: str) -> int:
    number = uid.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _outdated(pods: Sequence[Standing]) -> list[Standing]:
    return [pod for pod in pods if not pod.current]


def _missing(wanted: Sequence[str], pods: Sequence[Standing]) -> tuple[str, ...]:
    known = {pod.uid for pod in pods}
    return tuple(uid for uid in wanted if uid not in known)
