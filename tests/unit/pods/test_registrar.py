"""What the testbed tells the mesh: the newest, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest

from meshd import wire
from meshd.base.backoff import Backoff
from meshd.base.errors import SystemRefusedError
from meshd.model.workload import Workload
from meshd.pods import registrar
from meshd.pods.registrar import Registrar
from meshd.wire import channel

PATIENCE = 60.0


@dataclasses.dataclass
class Mesh:
    """What is registered, by uid. While it is full it takes nothing."""

    registered: dict[str, Workload] = dataclasses.field(default_factory=dict)
    full: bool = False
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def handle(self, request: wire.AnyMessage) -> wire.Message:
        assert isinstance(request, wire.Register)
        self.changed.set()
        if self.full:
            raise SystemRefusedError("No space left on device")
        self.registered |= {one.uid: one for one in request.workloads}
        return wire.Done()

    async def until_ready(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(one.ready for one in self.registered.values()):
                self.changed.clear()
                await self.changed.wait()


def pod(*, ready: bool) -> Workload:
    return Workload(uid="n.a", name="a", namespace="n", netns="/ns", ready=ready)


def test_a_pod_that_becomes_ready_during_a_report_is_reported_next(tmp_path: Path) -> None:
    async def run() -> None:
        mesh, states = Mesh(), iter((False,))

        def workloads() -> tuple[Workload, ...]:
            now = next(states, True)
            if not now:
                found.change()
            return (pod(ready=now),)

        found = Registrar(tmp_path / "mesh.sock", workloads)
        async with await channel.listen(
            tmp_path / "mesh.sock", wire.ANY, channel.answering(mesh.handle), uids={os.geteuid()}
        ):
            running = asyncio.create_task(found.run())
            await mesh.until_ready()
            running.cancel()

    asyncio.run(run())


def test_refused_registrations_are_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrar, "_BACKOFF", Backoff(0.01, 0.01))

    async def run() -> None:
        mesh = Mesh(full=True)
        found = Registrar(tmp_path / "mesh.sock", lambda: (pod(ready=True),))
        async with await channel.listen(
            tmp_path / "mesh.sock", wire.ANY, channel.answering(mesh.handle), uids={os.geteuid()}
        ):
            running = asyncio.create_task(found.run())
            async with asyncio.timeout(PATIENCE):
                await mesh.changed.wait()
            mesh.full = False
            await mesh.until_ready()
            running.cancel()

    asyncio.run(run())


def test_what_a_pod_was_when_it_joined_does_not_stay(tmp_path: Path) -> None:
    async def run() -> None:
        mesh = Mesh()
        found = Registrar(tmp_path / "mesh.sock", lambda: (pod(ready=True),))
        async with await channel.listen(
            tmp_path / "mesh.sock", wire.ANY, channel.answering(mesh.handle), uids={os.geteuid()}
        ):
            running = asyncio.create_task(found.run())
            await mesh.until_ready()
            await found.prove(pod(ready=False))
            await mesh.until_ready()
            running.cancel()

    asyncio.run(run())


def test_a_pod_that_the_mesh_refuses_holds_up_no_other(tmp_path: Path) -> None:
    async def run() -> None:
        mesh = Mesh()
        bad = Workload(uid="n.\x1b", name="a", namespace="n", netns="/ns", ready=True)
        found = Registrar(tmp_path / "mesh.sock", lambda: (bad, pod(ready=True)))
        async with await channel.listen(
            tmp_path / "mesh.sock", wire.ANY, channel.answering(mesh.handle), uids={os.geteuid()}
        ):
            running = asyncio.create_task(found.run())
            await mesh.until_ready()
            running.cancel()
        assert list(mesh.registered) == ["n.a"]

    asyncio.run(run())
