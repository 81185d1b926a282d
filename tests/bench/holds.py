"""How long the mesh role's steps hold its event loop, in CPU time of the loop's own thread.

The role's parts as in earnest, with a store that follows a server, its sockets, and a client that
takes all that proxies take. The client has a process of its own. Waiting, for another process or
for a turn, is no part of what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshd import wire
from meshd.api.base import Key
from meshd.base.errors import NotReadyError
from meshd.base.garbage import bound_pauses
from meshd.model.pool import Pool
from meshd.model.workload import Observation, Stage
from meshd.node.api import Control
from meshd.node.mesh import Mesh
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings
from meshd.xds.resources import TYPES
from tests.ads import delta_stream
from tests.bench.changes import CLIENTS, ENDPOINTS, named, objects_of, workload
from tests.bench.figures import Json

_PATIENCE: Final = 900.0
_SERVICES: Final = (1_000, 10_000)
_LOOK: Final = 0.02
"""Seconds between looks at whether proxies have everything."""
_WANTED: Final = 0.05
"""Seconds."""


class Holds:
    """The longest step of a loop, and what it was."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.of = ""

    def take(self) -> tuple[float, str]:
        found, self.longest, self.of = (self.longest, self.of), 0.0, ""
        return found

    @contextlib.contextmanager
    def measured(self) -> Generator[None]:
        handle: Any = asyncio.Handle
        run = handle._run

        def measured(one: Any) -> None:
            began = time.thread_time()
            run(one)
            if (took := time.thread_time() - began) > self.longest:
                self.longest, self.of = took, _name(one)

        handle._run = measured
        try:
            yield
        finally:
            handle._run = run


def _name(handle: Any) -> str:
    owner = getattr(handle._callback, "__self__", None) or handle._callback
    return repr(owner.get_coro() if isinstance(owner, asyncio.Task) else owner)[:80]


# ---- the proxies


def _proxy(path: str, pool: str) -> None:
    """Take all that there is, until killed."""
    asyncio.run(_take_all(path, pool))


async def _take_all(path: str, pool: str) -> None:
    node = base_pb2.Node(id=pool, cluster=pool)
    options = (("grpc.max_receive_message_length", -1),)
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        stream = delta_stream(channel)
        for url in TYPES:
            await stream.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    node=node, type_url=url, resource_names_subscribe=["*"]
                )
            )
        while (told := await stream.read()) is not grpc.aio.EOF:
            await stream.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    type_url=told.type_url, response_nonce=told.nonce
                )
            )


@contextlib.contextmanager
def _proxies(path: Path) -> Generator[None]:
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(target=_proxy, args=(str(path), pool.value), daemon=True) for pool in Pool
    ]
    for one in started:
        one.start()
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.join()


# ---- the role


class Role:
    """The mesh role of an agent's node, with a mesh of so many services."""

    def __init__(self, directory: Path, services: int) -> None:
        self.paths = Paths(directory / "etc", directory / "lib", directory / "run")
        for one in (self.paths.config_directory, self.paths.lib, self.paths.resolver_run):
            one.mkdir(parents=True)
        self.paths.plane.parent.mkdir(parents=True, exist_ok=True)
        self.paths.workloads.parent.mkdir(parents=True, exist_ok=True)
        self.mesh: Mesh = assembled(Settings(), self.paths)
        self.control = Control(self.mesh, Settings(), self.paths)
        self.objects = {one.key: one for one in objects_of(services, services * 3 // 10)}
        self.own = tuple(workload(n, n, "", f"198.18.0.{n + 1}") for n in range(CLIENTS))
        self.others = [
            workload(n, n // ENDPOINTS, "there", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
            for n in range(services * ENDPOINTS)
        ]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        mesh = self.mesh
        await mesh.xds.start(self.paths.plane)
        try:
            async with asyncio.TaskGroup() as tasks:
                started = [
                    tasks.create_task(mesh.publishing.run()),
                    tasks.create_task(mesh.settling.run(mesh.reconciler.settle, mesh.work)),
                ]
                with _proxies(self.paths.plane):
                    yield
                for task in started:
                    task.cancel()
        finally:
            await mesh.xds.stop()

    @property
    def _is_settled(self) -> bool:
        mesh = self.mesh
        return not mesh.settling.is_due and not mesh.publishing.busy and mesh.xds.settled

    async def settled(self) -> None:
        """Wait until proxies have all that is known. What they acknowledge last brings no round of
        settling with it."""
        until = time.monotonic() + _PATIENCE
        while not self._is_settled:
            if time.monotonic() > until:
                raise NotReadyError("the mesh role did not settle")
            await asyncio.sleep(_LOOK)

    async def begin(self) -> None:
        """Have workloads here, and no mesh yet."""
        reconciler = self.mesh.reconciler
        reconciler.register(self.own)
        seen = [
            Observation(one.uid, Stage.PINNED, pinned=f"/pins/{one.uid}", addresses=one.addresses)
            for one in self.own
        ]
        reconciler.observed(seen)
        await self.settled()

    async def whole(self) -> None:
        self.mesh.store.follow(dict(self.objects))
        self.mesh.hear_of(tuple(self.others))
        await self.settled()

    async def readiness(self) -> None:
        self.others[7] = msgspec.structs.replace(self.others[7], ready=False)
        self.mesh.hear_of(tuple(self.others))
        await self.settled()

    async def virtual_service(self) -> None:
        key = Key("VirtualService", "n0", "s0")
        changed: Any = self.objects[key]
        first, *others = changed.spec.http
        self.objects[key] = named(
            changed, 0, http=(msgspec.structs.replace(first, timeout=3.0), *others)
        )
        self.mesh.store.follow(dict(self.objects))
        await self.settled()

    async def status(self) -> None:
        await self.control.handle(wire.Status())

    async def explain(self) -> None:
        question = wire.Explain(self.own[0].name, "s0", namespace=self.own[0].namespace)
        await self.control.handle(question)

    async def get(self) -> None:
        await self.control.handle(wire.Get("service", namespace="n0"))


def measure(progress: Callable[[str], None], *, small: bool) -> list[Json]:
    """Measure meshes of ever more services."""
    bound_pauses()
    rows: list[Json] = []
    for services in _SERVICES[: 1 if small else None]:
        progress(f"the loop among {services} services")
        rows.append(asyncio.run(_measured(services)))
    return rows


async def _measured(services: int) -> Json:
    holds, row = Holds(), dict[str, Any](services=services, wanted=_WANTED, holds={})
    with tempfile.TemporaryDirectory() as directory, holds.measured():
        role = Role(Path(directory), services)
        steps: list[Callable[[], Awaitable[None]]] = [
            role.begin,
            role.whole,
            role.readiness,
            role.virtual_service,
            role.status,
            role.explain,
            role.get,
        ]
        async with role.running():
            for step in steps:
                await asyncio.sleep(0)
                holds.take()
                await step()
                await asyncio.sleep(0)
                longest, of = holds.take()
                row["holds"][step.__name__] = {"seconds": longest, "of": of}
    return row
