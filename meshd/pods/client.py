"""The client of ``meshctl testbed``: it reads manifests, plans, and talks to mesh and
supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd import wire
from meshd.analysis import validate
from meshd.api import kinds
from meshd.api.base import Object
from meshd.api.kubernetes.types import DaemonSet, Deployment, Namespace, Secret, StatefulSet
from meshd.api.read import Read, RejectedError, read_sources
from meshd.base.errors import (
    InvalidInputError,
    MeshdError,
    NotReadyError,
    SystemRefusedError,
    UnreachableError,
)
from meshd.model.pod import ContainerState, PodState, Rollout
from meshd.pods import launch
from meshd.pods.addresses import DEFAULT_CIDR, Subnet
from meshd.pods.files import Home
from meshd.pods.images import ImageMap
from meshd.pods.lookup import DataObjects
from meshd.pods.plan import Bed, Plan, make_plan
from meshd.pods.processes import gone
from meshd.pods.registrar import Registrar
from meshd.settings import load
from meshd.wire import channel

Sources = tuple[tuple[str, str], ...]
_START: Final = 30.0
"""Seconds for the supervisor to answer after it was started."""
_STOP: Final = 45.0
"""Seconds for it to end everything before it is killed."""
_LOOK: Final = 0.05
"""Seconds between looks at the pods' state."""
_HOPELESS: Final = 3
"""Restarts of a container that never was ready after which nobody need wait any longer."""


_CONTROLLERS: Final = {Deployment, StatefulSet, DaemonSet}


class Client:
    """One testbed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._mesh = home.paths.socket("mesh")
        self._supervisor = home.socket
        self._child: subprocess.Popen[bytes] | None = None

    async def pods(self) -> wire.Pods:
        """Raises UnreachableError when no testbed runs."""
        if self._home.owner() is None:
            raise UnreachableError("no testbed is running; start one with: meshctl testbed up -f …")
        answer = await channel.call(self._supervisor, wire.ListPods())
        if isinstance(answer, wire.Pods):
            return answer
        raise _unexpected(answer)

    async def plan(
        self, sources: Sources, namespace: str, images: ImageMap, cidr: str
    ) -> tuple[Plan, str]:
        """Return what there is to do, and the network that it is done in. Nothing is changed.

        Raises RejectedError with all that is wrong with the manifests, and UnreachableError if pods
        belong to a mesh that does not run.
        """
        reads = read(sources, namespace)
        running = wire.Pods((), "")
        if self._home.owner() is not None:
            running = await self.pods()
        if cidr and running.cidr and Subnet.parse(cidr) != Subnet.parse(running.cidr):
            raise InvalidInputError(
                f"this testbed's network is {running.cidr}, not {cidr}; take it down first"
            )
        cidr = cidr or running.cidr or DEFAULT_CIDR
        known = await self._stored(Namespace)
        bed = Bed(
            subnet=Subnet.parse(cidr),
            images=images,
            node=load(self._home.paths.settings).node_name,
            namespaces={one.metadata.name: one.metadata.labels for one in known or ()},
            data=DataObjects.of(await self._stored(Secret) or ()),
            running=(
                *(pod.plan for pod in running.pods),
                *(plan for rollout in running.rollouts for plan in rollout.pending),
            ),
        )
        plan = make_plan(reads, bed)
        enrolled = next((pod for pod in plan.pods if pod.enrolled), None)
        if known is None and enrolled:
            raise UnreachableError(
                f"pod {enrolled.namespace}/{enrolled.name} belongs into the mesh, but meshd does"
                f" not answer at {self._mesh}; start meshd first"
            )
        if known is not None:
            plan = dataclasses.replace(plan, notes=(*plan.notes, *_outside(plan)))
        return plan, cidr

    async def _stored(self, kind: type[Object]) -> tuple[Object, ...] | None:
        """Return the mesh's objects of a kind; None if there is no mesh."""
        try:
            answer = await channel.call(self._mesh, wire.Get(kind.KIND))
        except UnreachableError:
            return None
        if not isinstance(answer, wire.Objects):
            raise _unexpected(answer)
        return tuple(msgspec.convert(found, kind) for found in answer.objects)

    async def apply(self, sources: Sources, namespace: str) -> tuple[wire.Change, ...]:
        """Give the mesh the rest of the manifests. Without a mesh nothing is done."""
        if await self._stored(Namespace) is None:
            return ()
        answer = await channel.call(self._mesh, wire.Apply(sources, namespace), timeout=30)
        if isinstance(answer, wire.Changed):
            return answer.changes
        if isinstance(answer, wire.Rejected):
            raise RejectedError(answer.findings)
        raise _unexpected(answer)

    async def run(self, plan: Plan, cidr: str) -> None:
        """Hand the pods to the supervisor, which is started when it does not run."""
        await self._ensure_supervisor()
        request = wire.RunPods(plan.owners, plan.pods, cidr)
        answer = await channel.call(self._supervisor, request, timeout=120)
        if not isinstance(answer, wire.Done):
            raise _unexpected(answer)

    async def wait_ready(
        self, plan: Plan, timeout: float, progress: Callable[[tuple[PodState, ...]], None]
    ) -> tuple[PodState, ...]:
        """Wait until all pods of the plan are ready, and no former one is left.

        Raises NotReadyError, naming those that are not ready; the former pods go on.
        """
        owners = {owner.name for owner in plan.owners}
        deadline = time.monotonic() + timeout
        while True:
            answer = await self.pods()
            states = tuple(pod for pod in answer.pods if pod.plan in plan.pods)
            rollouts = [one for one in answer.rollouts if one.owner in owners]
            progress(states)
            waiting = [pod for pod in states if not pod.ready]
            if not waiting and not rollouts:
                return states
            failed = [one.problem for one in rollouts if one.problem]
            hopeless = [pod for pod in waiting if pod.restarts >= _HOPELESS]
            if failed or hopeless or time.monotonic() > deadline:
                stopped = [_how_far(one) for one in rollouts if one.outdated]
                lines = [*failed, *stopped, *(_why(pod) for pod in hopeless or waiting)]
                raise NotReadyError("\n".join(lines or [_late(one) for one in rollouts]))
            await asyncio.sleep(_LOOK)

    async def _ensure_supervisor(self) -> None:
        if self._home.owner() is not None:
            return
        self._home.paths.run.mkdir(parents=True, exist_ok=True)
        with self._home.supervisor_log.open("ab") as log:
            child = self._child = subprocess.Popen(  # noqa: ASYNC220 - it outlives this process
                [sys.executable, "-m", "meshd.pods"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and child.poll() is None:
            with contextlib.suppress(UnreachableError):
                await channel.call(self._supervisor, wire.ListPods())
                return
            await asyncio.sleep(_LOOK)
        if child.poll() is None:
            raise NotReadyError(f"the testbed's supervisor (pid {child.pid}) does not answer")
        raise SystemRefusedError(_last_line(self._home.supervisor_log))

    async def down(self) -> bool:
        """Take everything away, however the supervisor ended. False when there was nothing."""
        if not self._home.lock.exists() and not self._home.directory.exists():
            return False
        await self._end_supervisor()
        with self._home.locked():
            registrar = Registrar(self._mesh, tuple)
            problem = await registrar.forget(self._home.leftovers())
            self._home.clear()
            self._supervisor.unlink(missing_ok=True)
            self._home.forget()
        if problem:
            raise SystemRefusedError(f"all is down, but the mesh did not let pods go: {problem}")
        return True

    async def _end_supervisor(self) -> None:
        """End the supervisor, and wait for its process: it lets the lock go before its end."""
        for number, patience in ((signal.SIGTERM, _STOP), (signal.SIGKILL, 5.0)):
            pid = self._home.owner()
            if not pid:
                continue
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, number)
                    async with asyncio.timeout(patience):
                        await gone(descriptor)
                finally:
                    os.close(descriptor)
        if self._child:
            self._child.wait(_STOP)  # it is this process' own child: fetch its status


def read(sources: Sources, namespace: str) -> tuple[Read, ...]:
    """Return the objects of the manifests. Raises RejectedError with all that is wrong with
    them."""
    reading = read_sources(sources, namespace)
    findings = (*reading.errors, *validate.check_fields(reading.objects))
    errors = tuple(finding for finding in findings if finding.severity == "error")
    if errors:
        raise RejectedError(errors)
    return reading.objects


def select(pods: tuple[PodState, ...], name: str, namespace: str) -> PodState:
    """Return the pod that the user names: ``deploy/NAME``, a pod's name or the beginning of one.

    A ready one comes first. Raises InvalidInputError.
    """
    typed, slash, rest = name.partition("/")
    here = [pod for pod in pods if pod.plan.namespace == namespace]
    kind = kinds.BY_NAME.get(typed.lower()) if slash else None
    if kind and kind in _CONTROLLERS:
        found = [pod for pod in here if pod.plan.owner == f"{kind.KIND} {namespace}/{rest}"]
    else:
        wanted = rest if slash else name
        found = [pod for pod in here if pod.plan.name == wanted]
        found = found or [pod for pod in here if pod.plan.name.startswith(wanted)]
    if not found:
        names = ", ".join(pod.plan.name for pod in here) or "none"
        raise InvalidInputError(f"no pod {name} in namespace {namespace} (there are: {names})")
    return next((pod for pod in found if pod.ready), found[0])


def command_inside(
    pod: PodState, container: str, command: tuple[str, ...]
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the command line, and its environment, that runs a command in a container.

    Raises InvalidInputError if there is no such container, NotReadyError if it does not run.
    """
    state = _container(pod, container)
    if not state.pid:
        raise NotReadyError(
            f"container {state.name} of pod {pod.plan.name} does not run: {_why(pod)}"
        )
    plan = next(each for each in pod.plan.every_container if each.name == state.name)
    return launch.inside(state.pid, pod.plan.user, command), plan.environment


def log_of(pod: PodState, container: str) -> str:
    """Return the path of a container's log. Raises InvalidInputError if there is no such
    container."""
    return _container(pod, container).log


def _container(pod: PodState, name: str) -> ContainerState:
    wanted = name or pod.plan.containers[0].name
    found = next((state for state in pod.containers if state.name == wanted), None)
    if found is None:
        names = ", ".join(state.name for state in pod.containers)
        raise InvalidInputError(f"pod {pod.plan.name} has no container {name} (it has: {names})")
    return found


def _why(pod: PodState) -> str:
    what = f"pod {pod.plan.namespace}/{pod.plan.name} is not ready: "
    what += pod.problem or pod.state.lower()
    failed = next((each for each in pod.containers if each.restarts and not each.ready), None)
    if failed and (line := _last_line(Path(failed.log))):
        what += f"; its last output: {line}"
    return what


def _how_far(rollout: Rollout) -> str:
    return (
        f"{rollout.owner}: {rollout.updated} of {rollout.wanted} pods are replaced;"
        f" {rollout.outdated} of before go on until the next one is ready"
    )


def _late(rollout: Rollout) -> str:
    return f"{rollout.owner}: {rollout.updated} of {rollout.wanted} pods are available"


def _outside(plan: Plan) -> tuple[str, ...]:
    """Return remarks about what pods outside the mesh lack, which they would have in Kubernetes."""
    names = [f"{pod.namespace}/{pod.name}" for pod in plan.pods if not pod.enrolled]
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    verb = "are" if len(names) > 1 else "is"
    lacking = "without the names and virtual addresses of Services, which the mesh gives"
    return (f"pod {names[0]}{more} {verb} outside the mesh: {lacking}",)


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 4096, 0))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _unexpected(answer: wire.AnyMessage | wire.Message) -> MeshdError:
    if isinstance(answer, wire.Failed):
        return InvalidInputError(answer.reason)
    return UnreachableError(f"another version of meshd answered: {type(answer).__name__}")
