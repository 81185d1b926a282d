"""One pod from its namespace to its end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from meshd.base import tasks
from meshd.base.errors import MeshdError
from meshd.capture.rules import inside
from meshd.model.pod import ContainerPlan, PodPlan, PodState
from meshd.model.workload import Workload
from meshd.pods.container import Container
from meshd.pods.files import Home
from meshd.pods.launch import Task
from meshd.pods.mounts import Mount
from meshd.pods.network import Network

Prove = Callable[[Workload], Awaitable[None]]
"""Returns when the mesh has the workload's traffic. Raises MeshdError."""
_AGAIN = 2.0
"""Seconds until what failed at the start is tried again."""


class RunningPod:
    """A running pod; ``changed`` is called when its state has changed."""

    def __init__(
        self, plan: PodPlan, home: Home, network: Network, node: str, changed: Callable[[], None]
    ) -> None:
        self.plan = plan
        self._home = home
        self._network = network
        self._node = node
        self._changed = changed
        self._state = "Creating"
        self._problem = ""
        self._init = [self._container(each) for each in plan.init_containers]
        self._containers = [self._container(each) for each in plan.containers]
        self._joined = not plan.enrolled
        self._cookie = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def netns(self) -> Path:
        return self._home.netns(self.plan.uid)

    @property
    def ready(self) -> bool:
        """Return whether the pod may receive requests, in the mesh or not."""
        states = [container.state for container in self._containers]
        return self._state == "Running" and all(state.ready for state in states)

    @property
    def state(self) -> PodState:
        return PodState(
            plan=self.plan,
            netns=str(self.netns),
            state=self._state,
            ready=self.ready and self._joined,
            problem=self._problem or self._trouble(),
            containers=tuple(each.state for each in (*self._init, *self._containers)),
        )

    @property
    def workload(self) -> Workload:
        """Return the workload as the mesh is told: the labels decide whether it is enrolled."""
        plan = self.plan
        return Workload(
            uid=plan.uid,
            name=plan.name,
            namespace=plan.namespace,
            netns=str(self.netns),
            hostname="" if plan.name.startswith(plan.hostname) else plan.hostname,
            netns_cookie=self._cookie,
            service_account=plan.service_account,
            labels=plan.labels,
            annotations=plan.annotations,
            addresses=(plan.address, plan.address_v6),
            ports=plan.ports,
            node=self._node,
            ready=self.ready,
            enrolled=False,
        )

    def _trouble(self) -> str:
        for container in (*self._init, *self._containers):
            state = container.state
            if state.restarts and not state.ready:
                return f"container {state.name} {state.state} (restarts: {state.restarts})"
        return ""

    def start(self, number: int, prove: Prove) -> None:
        """Begin to live. What fails later is tried again, and told in ``state``."""
        try:
            self._home.prepare(self.plan)
            self._network.add(self.plan.uid, self.netns, number)
            self._cookie = inside.cookie_of(self.netns)
        except (MeshdError, OSError):
            self._remove()
            raise
        self._tasks.append(tasks.start(self._live(prove), f"pod {self.plan.uid}"))

    def replan(self, plan: PodPlan, prove: Prove) -> None:
        """Take over a plan that differs only in whether it is in the mesh. Nothing is restarted."""
        self.plan = plan
        self._joined = not plan.enrolled
        if plan.enrolled:
            self._tasks.append(tasks.start(self._join(prove), f"pod {self.plan.uid}"))

    async def stop(self) -> None:
        """End its processes, and take its namespace and files away."""
        self._become("Stopping")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._remove()

    def _remove(self) -> None:
        self._network.remove(self.plan.uid, self.netns)
        shutil.rmtree(self._home.pod(self.plan.uid), ignore_errors=True)

    def trim_logs(self) -> None:
        for container in (*self._init, *self._containers):
            container.trim_log()

    def _become(self, state: str, problem: str = "") -> None:
        self._state, self._problem = state, problem
        self._changed()

    async def _live(self, prove: Prove) -> None:
        if self.plan.enrolled:
            self._become("Joining")
            await self._join(prove)
        if self._init:
            self._become("Initialising")
            for container in self._init:
                await container.complete()
        self._become("Running")
        async with asyncio.TaskGroup() as group:
            for container in self._containers:
                group.create_task(container.keep(self.plan.address))

    async def _join(self, prove: Prove) -> None:
        """Wait until the pod's traffic is captured: what starts earlier would bypass the mesh."""
        while not self._joined:
            try:
                await prove(self.workload)
            except MeshdError as error:
                self._become(self._state, f"not in the mesh: {error}")
                await asyncio.sleep(_AGAIN)
            else:
                self._joined = True
                self._become(self._state)

    def _container(self, plan: ContainerPlan) -> Container:
        task = Task(
            netns=self.netns,
            hostname=self.plan.hostname,
            user=self.plan.user,
            command=plan.command,
            environment=plan.environment,
            directory=plan.directory,
            working_directory=plan.working_directory,
            files=self._home.mounted(self.plan.uid),
            hidden=self._home.hidden,
            mounts=tuple(
                Mount(
                    each.path,
                    self._home.volume(self.plan.uid, each.volume),
                    each.sub_path,
                    each.writable,
                )
                for each in plan.mounts
            ),
        )
        return Container(plan, task, self._home.log(self.plan.uid, plan.name), self._changed)
