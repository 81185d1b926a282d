"""The testbed's own process: keeps the pods that it was told to run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Final

import msgspec

from meshd import channel, wire
from meshd.errors import InvalidInputError, MeshdError, SystemRefusedError
from meshd.model.pod import PodPlan
from meshd.model.workload import Workload
from meshd.settings import Paths, load
from meshd.testbed import kernel
from meshd.testbed.addresses import Subnet
from meshd.testbed.files import Home
from meshd.testbed.network import Network
from meshd.testbed.pod import RunningPod
from meshd.testbed.registrar import Registrar

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
        self._one_at_a_time = asyncio.Lock()
        self._registrar = Registrar(home.paths.socket("mesh"), self._workloads)

    def _workloads(self) -> tuple[Workload, ...]:
        return tuple(pod.workload for pod in self._pods.values())

    async def handle(self, request: wire.AnyMessage) -> wire.Message:
        if isinstance(request, wire.ListPods):
            cidr = str(self._subnet.network) if self._subnet else ""
            return wire.Pods(tuple(pod.state for pod in self._pods.values()), cidr)
        if isinstance(request, wire.RunPods):
            async with self._one_at_a_time:
                try:
                    await self._run(request)
                except OSError as error:
                    raise SystemRefusedError(f"the testbed cannot be made: {error}") from None
            return wire.Done()
        raise InvalidInputError(f"the testbed does not answer {type(request).__name__}")

    async def _run(self, request: wire.RunPods) -> None:
        """Make the difference: what is equal stays."""
        subnet = Subnet.parse(request.cidr)
        wanted = {plan.uid: plan for plan in request.pods}
        gone = [
            pod
            for uid, pod in self._pods.items()
            if pod.plan.owner in request.owners and not _is_same(wanted.get(uid), pod.plan)
        ]
        self._refuse_clashes(subnet, wanted, {pod.plan.uid for pod in gone})
        network = self._network or self._create(subnet)
        await self._stop(gone)
        for plan in wanted.values():
            pod = self._pods.get(plan.uid)
            if pod is None:
                await self._start(plan, network, subnet)
            elif pod.plan != plan:
                pod.replan(plan, self._registrar.prove)

    def _refuse_clashes(self, subnet: Subnet, wanted: dict[str, PodPlan], gone: set[str]) -> None:
        """Two that plan at the same time might take the same addresses, or another network."""
        kept = {uid: pod.plan for uid, pod in self._pods.items() if uid not in gone}
        plans = (kept | wanted).values()
        unique = len({plan.address for plan in plans}) == len(plans)
        if not unique or self._subnet not in {None, subnet}:
            raise InvalidInputError("the testbed was changed at the same time; try again")

    def _create(self, subnet: Subnet) -> Network:
        network = Network(self._home.directory, subnet)
        self._home.namespaces.mkdir(parents=True, exist_ok=True)
        try:
            network.create()
        except (MeshdError, OSError):
            self._home.clear()
            raise
        self._network, self._subnet = network, subnet
        return network

    async def _start(self, plan: PodPlan, network: Network, subnet: Subnet) -> None:
        pod = RunningPod(plan, self._home, network, self._node, self._registrar.change)
        self._pods[plan.uid] = pod
        try:
            pod.start(subnet.number(plan.address), self._registrar.prove)
        except (MeshdError, OSError):
            await self._stop([pod])
            raise
        self._registrar.change()

    async def _stop(self, pods: list[RunningPod]) -> None:
        """First out of the mesh, so that no more requests come, and then out of the kernel."""
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
        """Until SIGTERM or SIGINT; then nothing is left but what ``Home.clear`` takes."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        telling = asyncio.create_task(self._registrar.run())
        trimming = asyncio.create_task(self._trim_logs())
        path = self._home.socket
        server = await channel.listen(path, channel.answering(self.handle), uids={0}, mode=0o600)
        try:
            await stopping.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)
            for task in (telling, trimming):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            async with self._one_at_a_time:
                await self._stop(list(self._pods.values()))

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK)
            for pod in self._pods.values():
                pod.trim_logs()


def _is_same(wanted: PodPlan | None, plan: PodPlan) -> bool:
    """Whether a pod may go on: joining the mesh, or leaving it, restarts nothing."""
    return wanted is not None and msgspec.structs.replace(wanted, enrolled=plan.enrolled) == plan


def main() -> int:
    """The process's whole life; one line says why it could not begin."""
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
