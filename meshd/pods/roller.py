"""Brings the pods of one owner to the wanted state, step by step."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

from meshd.base import tasks
from meshd.base.errors import MeshdError
from meshd.model.pod import OwnerPlan, PodPlan, Rollout
from meshd.pods.pod import RunningPod
from meshd.pods.rollout import Standing, is_done, next_step

Start = Callable[[PodPlan], None]
"""Raises MeshdError or OSError."""
Stop = Callable[[list[RunningPod]], Awaitable[None]]


class Roller:
    """A rollout of one owner. ``pods`` are all that run, by uid."""

    def __init__(self, pods: Mapping[str, RunningPod], start: Start, stop: Stop) -> None:
        self._pods = pods
        self._start = start
        self._stop = stop
        self._owner = OwnerPlan(name="")
        self._wanted: dict[str, PodPlan] = {}
        self._ready_since: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._problem = ""
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> Mapping[str, PodPlan]:
        return self._wanted

    def aim(self, owner: OwnerPlan, plans: Mapping[str, PodPlan]) -> None:
        """Set what is wanted from now on. A rollout in progress goes on towards it."""
        self._owner, self._wanted, self._problem = owner, dict(plans), ""
        self.wake()
        if self._task is None or self._task.done():
            self._task = tasks.keep(self._roll, f"rolling out {self._owner.name}")

    def wake(self) -> None:
        """Look again: the state of a pod has changed."""
        self._changed.set()

    async def end(self) -> None:
        """Finish the step that is under way, and begin no other."""
        self._ending = True
        self.wake()
        if self._task:
            await self._task

    @property
    def state(self) -> Rollout | None:
        """Return the rollout; None when all is as wanted."""
        standings = self._standings()
        if is_done(tuple(self._wanted), standings) and not self._problem:
            return None
        running = {pod.uid for pod in standings if pod.current}
        return Rollout(
            owner=self._owner.name,
            wanted=len(self._wanted),
            updated=sum(pod.current and pod.available for pod in standings),
            outdated=sum(not pod.current for pod in standings),
            pending=tuple(plan for uid, plan in self._wanted.items() if uid not in running),
            problem=self._problem,
        )

    async def _roll(self) -> None:
        while not self._ending:
            self._changed.clear()  # first: what changes from now on is looked at the next time
            standings = self._standings()
            if is_done(tuple(self._wanted), standings):
                return
            step = next_step(self._owner.strategy, tuple(self._wanted), standings)
            if not (step.start or step.stop):
                await self._wait()
                continue
            try:
                if step.stop:
                    await self._stop([self._pods[uid] for uid in step.stop])
                for uid in step.start:
                    self._start(self._wanted[uid])
            except (MeshdError, OSError) as error:
                self._problem = f"{self._owner.name}: {error}"
                return

    def _standings(self) -> tuple[Standing, ...]:
        """Return the standings, with pods that have become ready, or ceased to be."""
        mine = [pod for pod in self._pods.values() if pod.plan.owner == self._owner.name]
        now = time.monotonic()
        before = self._ready_since
        self._ready_since = {
            pod.plan.uid: before.get(pod.plan.uid, now) for pod in mine if pod.state.ready
        }
        return tuple(
            Standing(
                uid=(uid := pod.plan.uid),
                current=pod.plan == self._wanted.get(uid),
                available=uid in self._ready_since and self._remaining(uid, now) <= 0,
            )
            for pod in mine
        )

    def _remaining(self, uid: str, now: float) -> float:
        """Return the seconds until a ready pod is available."""
        return self._ready_since[uid] + self._owner.strategy.min_ready_seconds - now

    async def _wait(self) -> None:
        """Wait until a pod changes, or has been ready for long enough."""
        now = time.monotonic()
        remaining = [self._remaining(uid, now) for uid in self._ready_since]
        soonest = min((seconds for seconds in remaining if seconds > 0), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(soonest):
                await self._changed.wait()
