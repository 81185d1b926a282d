"""meshctl ↔ testbed: the pods that are to run, and their states."""

from __future__ import annotations

from meshd.model.pod import OwnerPlan, PodPlan, PodState, Rollout
from meshd.wire.message import Message


class RunPods(Message, frozen=True):
    """Run the pods of these owners from now on; other owners' pods stay as they are.

    The answer does not wait for them: ``Pods`` tells their progress.
    """

    owners: tuple[OwnerPlan, ...]
    pods: tuple[PodPlan, ...]
    cidr: str
    """The network that the plans' addresses are out of."""


class ListPods(Message, frozen=True):
    """A question for the state of all pods."""


class Pods(Message, frozen=True):
    pods: tuple[PodState, ...]
    cidr: str
    """Empty while nothing has been run yet."""
    rollouts: tuple[Rollout, ...] = ()
    """Of owners that are not done."""


Messages = RunPods | ListPods | Pods
