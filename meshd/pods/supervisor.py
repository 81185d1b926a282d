"""The testbed's own process: it keeps the pods running that it was told to run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Final

import msgspec

from meshd import wire
from meshd.base import tasks
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, SystemRefusedError
from meshd.model.pod import PodPlan
from meshd.model.workload import Workload
from meshd.pods import kernel
from meshd.pods.addresses import Subnet
from meshd.pods.files import Home
from meshd.pods.network import Network
from meshd.pods.pod import RunningPod
from meshd.pods.registrar import Registrar
from meshd.pods.roller import Roller
from meshd.settings import Paths, load
from meshd.wire import channel

_LOG_CHECK: Final = 10.0
"""Seconds between looks at the size of logs."""


class Supervisor:
    """Pods by uid."""

    def __init__(self, home: Home, node: str) -> None:
        self._home = home
        self._node = node
        self._pods: dict[str, RunningPod] = {}
        self._subnet: Subnet | None = None
        self._network: Network | None = None
        self._rollers: dict[str, Roller] = {}
        self._registrar = Registrar(home.paths.socket("mesh"), self._workloads)

    def _workloads(self) -> tuple[Workload, ...]:
        return tuple(pod.workload for pod in self._pods.values())

    async def handle(self, request: wire.ToTestbed) -> wire.Message:
        if isinstance(request, wire.ListPods):
            cidr = str(self._subnet.network) if self._subnet else ""
            rollouts = tuple(state for roller in self._rollers.values() if (state := roller.state))
            return wire.Pods(tuple(pod.state for pod in self._pods.values()), cidr, rollouts)
        try:
            self._run(request)
        except OSError as error:
            raise SystemRefusedError(f"the testbed cannot be made: {error}") from None
        return wire.Done()

    def _run(self, request: wire.RunPods) -> None:
        """Make the difference: what is equal stays."""
        subnet = Subnet.parse(request.cidr)
        self._refuse_clashes(subnet, request)
        if self._network is None:
            self._create(subnet)
        for plan in request.pods:
            pod = self._pods.get(plan.uid)
            if pod and pod.plan != plan and _is_same(plan, pod.plan):
                pod.replan(plan, self._registrar.prove)
        for owner in request.owners:
            roller = self._rollers.setdefault(
                owner.name, Roller(self._pods, self._start, self._replace)
            )
            roller.aim(owner, {plan.uid: plan for plan in request.pods if plan.owner == owner.name})

    def _refuse_clashes(self, subnet: Subnet, request: wire.RunPods) -> None:
        """Refuse a request that was planned beside another and has the same addresses, or another
        network."""
        owners = {owner.name for owner in request.owners}
        plans = {plan.uid: plan for plan in request.pods}
        plans |= {uid: pod.plan for uid, pod in self._pods.items() if uid not in plans}
        for name, roller in self._rollers.items():
            plans |= {} if name in owners else roller.wanted
        unique = len({plan.address for plan in plans.values()}) == len(plans)
        if not unique or self._subnet not in {None, subnet}:
            raise InvalidInputError("the testbed was changed at the same time; try again")

    def _create(self, subnet: Subnet) -> None:
        network = Network(self._home.directory, subnet)
        self._home.namespaces.mkdir(parents=True, exist_ok=True)
        try:
            network.create()
        except (MeshdError, OSError):
            self._home.clear()
            raise
        self._network, self._subnet = network, subnet

    def _start(self, plan: PodPlan) -> None:
        network, subnet = self._network, self._subnet
        if network is None or subnet is None:
            raise NotReadyError("the testbed has no network yet")
        pod = RunningPod(plan, self._home, network, self._node, self._change)
        pod.start(subnet.number(plan.address), self._registrar.prove)
        self._pods[plan.uid] = pod
        self._change()

    def _change(self) -> None:
        """Report that the state of a pod has changed."""
        self._registrar.change()
        for roller in self._rollers.values():
            roller.wake()

    async def _replace(self, pods: list[RunningPod]) -> None:
        """Replace pods: the mesh knows those that stay before it releases the others, so requests
        go on."""
        owners = {pod.plan.owner for pod in pods}
        stay = [pod for pod in self._pods.values() if pod.plan.owner in owners and pod not in pods]
        await self._registrar.tell(tuple(pod.workload for pod in stay))
        await self._stop(pods)

    async def _stop(self, pods: list[RunningPod]) -> None:
        """Stop pods: first out of the mesh, so that no more requests come, and then out of the
        kernel."""
        for pod in pods:
            del self._pods[pod.plan.uid]
        if problem := await self._registrar.forget(tuple(pod.plan.uid for pod in pods)):
            print(f"the mesh did not let pods go: {problem}", flush=True)
        await asyncio.gather(*(pod.stop() for pod in pods))

    async def clean_up(self) -> None:
        """Take away what an earlier one left that was killed."""
        if problem := await self._registrar.forget(self._home.leftovers()):
            print(f"the mesh did not let pods go: {problem}", flush=True)
        self._home.clear()

    async def live(self) -> None:
        """Run until SIGTERM or SIGINT; then nothing is left but what ``Home.clear`` removes."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        telling = tasks.keep(self._registrar.run, "telling the mesh of pods")
        trimming = tasks.keep(self._trim_logs, "cutting logs")
        path = self._home.socket
        server = await channel.listen(
            path, wire.TESTBED, channel.answering(self.handle), uids={0}, mode=0o600
        )
        try:
            await stopping.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)
            for task in (telling, trimming):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await asyncio.gather(*(roller.end() for roller in self._rollers.values()))
            await self._stop(list(self._pods.values()))

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK)
            for pod in self._pods.values():
                pod.trim_logs()


def _is_same(wanted: PodPlan, plan: PodPlan) -> bool:
    """Return whether a pod may go on: joining the mesh, or leaving it, restarts nothing."""
    return msgspec.structs.replace(wanted, enrolled=plan.enrolled) == plan


def main() -> int:
    """Run the supervisor; if it cannot begin, one line says why."""
    paths = Paths.from_environment()
    try:
        settings = load(paths.settings)
        home = Home(paths, settings.mesh.domain)
        with home.locked():
            kernel.become_subreaper()
            supervisor = Supervisor(home, settings.node_name)
            asyncio.run(supervisor.clean_up())
            asyncio.run(supervisor.live())
            home.clear()
    except (MeshdError, OSError) as error:
        print(f"testbed: {error}", flush=True)
        return 1
    return 0
