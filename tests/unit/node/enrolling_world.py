"""A host on which enrollments are carried out, in memory: it outlives the process that does it.

A process can be killed before or after any of its effects. What it would do after that raises, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from meshd import wire
from meshd.api.object_fields import name_of, namespace_of
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError, NotReadyError, SystemRefusedError
from meshd.base.json_values import JsonObject
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.node.enrolling import Enrolling
from meshd.node.enrollment_journal import decode
from meshd.node.enrollment_requests import EnrollmentRequests
from meshd.node.enrollment_steps import Steps
from meshd.node.unit_changes import is_to_restart
from meshd.workloads.host.systemd import described
from meshd.workloads.host.units import cgroup_of
from meshd.workloads.intent import Intent

UNIT = "web.service"
Request = wire.Enroll | wire.EnrollAgain | wire.Unenroll
STORED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "front", "namespace": "shop"},
    "spec": {"selector": {"tier": "front"}, "ports": [{"name": "http-80", "port": 80}]},
}


class Killed(BaseException):
    """The process is dead."""


def hosted(name: str = "web", port: int = 8080) -> Workload:
    unit = f"{name}.service"
    host = HostService(cgroup=cgroup_of(unit), unit=unit, address_asked=False)
    ports = (NamedPort("http-80", port),)
    return Workload(
        uid=f"shop.{name}", name=name, namespace="shop", netns="", ports=ports, host=host
    )


def contained(cookie: int) -> Workload:
    path = "/run/netns/web"
    return Workload(uid="shop.web", name="web", namespace="shop", netns=path, netns_cookie=cookie)


def enroll(workload: Workload, **more: Any) -> wire.Enroll:
    return wire.Enroll(workload=workload, run="run-0", timeout=60.0, **more)


@dataclasses.dataclass
class Host:
    """What there is. ``effects`` has all that was done, by name."""

    registered: dict[str, Workload] = dataclasses.field(default_factory=dict)
    services: dict[str, JsonObject] = dataclasses.field(default_factory=dict)
    prepared: set[str] = dataclasses.field(default_factory=set)
    is_inside: bool = False
    restarts: int = 0
    journal: bytes = b"{}"
    effects: list[str] = dataclasses.field(default_factory=list)
    kill_at: int = -1
    """The number of the effect at which the process dies."""
    kill_before: bool = False
    """Whether that effect does not take place any more."""
    is_dead: bool = False
    failing: dict[str, MeshdError] = dataclasses.field(default_factory=dict)
    """Why effects fail, by name."""
    boot: str = "first"
    is_proven: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """It is, unless a test says otherwise."""
    died: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.is_proven.set()

    @property
    def state(self) -> tuple[object, ...]:
        return (
            dict(self.registered),
            dict(self.services),
            set(self.prepared),
            self.is_inside,
            self.journal,
        )

    def do(self, name: str, effect: Callable[[], object] = lambda: None) -> None:
        """Have an effect, unless the process is dead, or dies of this."""
        dies = len(self.effects) == self.kill_at
        if self.is_dead or (dies and self.kill_before):
            self._die()
        if name in self.failing:
            raise self.failing[name]
        effect()
        self.effects.append(name)
        if dies:
            self._die()

    def _die(self) -> NoReturn:
        self.is_dead = True
        self.died()
        raise Killed

    def start(self) -> Process:
        """Return a new process, which goes on with what the journal holds."""
        self.is_dead, self.kill_at = False, -1
        return Process(self)


class Kept:
    """The journal, in memory."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def load(self) -> dict[str, Intent]:
        return decode(self._host.journal)

    async def write(self, intents: Callable[[], Mapping[str, Intent]]) -> None:
        def write() -> None:
            self._host.journal = msgspec.json.encode(intents())

        self._host.do("write", write)


class Registrations:
    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def registered(self) -> Mapping[str, Workload]:
        return self._host.registered

    def register(self, workloads: Sequence[Workload]) -> None:
        news = {one.uid: one for one in workloads}
        self._host.do("register", lambda: self._host.registered.update(news))

    async def prove(self, uids: Sequence[str], seconds: float) -> None:
        assert seconds > 0
        assert set(uids) <= self._host.registered.keys()
        await self._host.is_proven.wait()
        self._host.do("prove")

    async def unregister(self, uids: Sequence[str]) -> None:
        for uid in uids:
            self._host.do("unregister", lambda uid=uid: self._host.registered.pop(uid, None))


class Services:
    def __init__(self, host: Host) -> None:
        self._host = host

    def of(self, namespace: str) -> Iterable[JsonObject]:
        stored = self._host.services.values()
        return [one for one in stored if namespace_of(one) == namespace]

    async def apply(self, service: JsonObject) -> None:
        news = {name_of(service): service}
        self._host.do("apply", lambda: self._host.services.update(news))

    async def delete(self, namespace: str, names: tuple[str, ...]) -> None:
        for name in names:
            self._host.do("delete", lambda name=name: self._host.services.pop(name, None))


class Units:
    """One unit, which runs."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def is_prepared(self, unit: str) -> bool:
        return unit in self._host.prepared

    async def change(self, request: wire.UnitRequest) -> tuple[str, ...]:
        host, unit = self._host, request.unit
        match request:
            case wire.PrepareUnit():
                host.do("prepare", lambda: host.prepared.add(unit))
                return (f"{unit} is prepared",)
            case wire.RestoreUnit():
                host.do("restore", lambda: host.prepared.discard(unit))
            case wire.RestartUnit(run=run, inside=inside):
                cgroup = f"{cgroup_of(unit)}/{unit}" if host.is_inside else f"system.slice/{unit}"
                shown = f"LoadState=loaded\nActiveState=active\nControlGroup=/{cgroup}\n"
                now = described(unit, f"{shown}InvocationID=run-{host.restarts}")
                if is_to_restart(now, run, inside=inside):
                    host.do("restart", self._restart)
            case wire.StopSlice():
                host.do("stop slice")
        return ()

    def _restart(self) -> None:
        self._host.restarts += 1
        self._host.is_inside = UNIT in self._host.prepared


class Process:
    """The process that carries out enrollments on a host."""

    def __init__(self, host: Host) -> None:
        self._died = asyncio.Event()
        host.died = self._died.set
        self.steps = Steps(Registrations(host), Services(host), Units(host))
        self.enrolling = Enrolling(Kept(host), self.steps, host.boot, Backoff(0.0, 0.0))
        self.requests = EnrollmentRequests(self.enrolling, self.steps, server="", boot=host.boot)
        self.enrolling.resume()

    async def live(self, request: Request | None) -> None:
        """Carry out a request, and what else is in work, until all is done or the process dies."""
        with contextlib.suppress(Killed):
            if request:
                await self.requests.answer(request)
            end = asyncio.create_task(self.finish())
            death = asyncio.create_task(self._died.wait())
            await asyncio.wait((end, death), return_when=asyncio.FIRST_COMPLETED)
            for task in (end, death):
                task.cancel()
            await asyncio.wait((end, death))
        await self.enrolling.close()

    async def finish(self, *asked: wire.Progress) -> list[wire.Progress]:
        """Return how the requests have ended, when all is done."""
        while self.enrolling.statuses():
            for one in self.enrolling.intents().values():
                await self._change(one.number)
            await asyncio.sleep(0)
        return [await self._change(one.number) for one in asked]

    async def _change(self, number: int) -> wire.Progress:
        progress = await self.requests.answer(wire.Await(number, -1, 0.0))
        while not progress.finished:
            progress = await self.requests.answer(wire.Await(number, progress.state, 5.0))
        return progress


FULL = SystemRefusedError("/var/lib/meshd: cannot be written: No space left on device")
LATE = NotReadyError("not in the mesh after 60 s: no proxy is connected")
