"""What container runtimes ask for, and what the mesh role is told of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd import wire
from meshd.base.errors import InvalidInputError, UnreachableError
from meshd.cni.request import Attachment, CniError, Config, Request
from meshd.cni.sandboxes import Sandboxes, load
from meshd.model.workload import Workload
from meshd.node import attaching
from meshd.node.attaching import Attaching
from meshd.wire import channel
from tests.waiting import PATIENCE

CONFIG = Config()


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


class World:
    """A mesh role that notes what it is told; ``answer`` is what it says to registrations."""

    def __init__(self, root: Path) -> None:
        self.socket = root / "mesh.sock"
        self.record = root / "attached.json"
        self.netns = root / "netns"
        self.netns.touch()
        self.told: list[wire.Message] = []
        self.answer: wire.Message = wire.Done()
        self.again()

    def again(self, **options: Any) -> None:
        self.attaching = Attaching(self.socket, self.record, self._describe, **options)

    async def _describe(self, request: Request) -> Workload | None:
        if request.container == "excluded":
            return None
        if request.container == "unknown":
            raise InvalidInputError("it is not known")
        name = request.container.partition("-")[0]
        return Workload(uid=f"shop.{name}", name=name, namespace="shop", netns=str(self.netns))

    async def handle(self, request: wire.ToMesh) -> wire.Message:
        self.told.append(request)
        return self.answer

    async def listen(self) -> asyncio.Server:
        session = channel.answering(self.handle)
        return await channel.listen(self.socket, wire.MESH, session, uids={os.getuid()})

    async def do(self, command: str, container: str, config: Config = CONFIG) -> None:
        request = Request(command, container, str(self.netns), config=config)
        await self.attaching.handle(request)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(world: World, work: Callable[[], Awaitable[None]]) -> None:
    async def live() -> None:
        async with await world.listen(), asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(live())


def test_a_container_is_registered_and_waited_for(world: World) -> None:
    async def work() -> None:
        await world.do("ADD", "web-1")

    run(world, work)
    (told,) = world.told
    assert isinstance(told, wire.Register)
    assert [one.uid for one in told.workloads] == ["shop.web"]
    assert told.wait > 0


def test_what_is_excluded_is_not_told(world: World) -> None:
    async def work() -> None:
        for command in ("ADD", "CHECK", "DEL"):
            await world.do(command, "excluded")

    run(world, work)
    assert world.told == []


def test_a_container_that_is_not_proven_in_time_is_refused(world: World) -> None:
    async def work() -> None:
        world.answer = wire.Failed("not in the mesh after 30 s")
        with pytest.raises(CniError, match="not in the mesh"):
            await world.do("ADD", "web-1")
        world.answer = wire.Done()
        await world.do("DEL", "web-1")

    run(world, work)
    assert world.told[-1] == wire.Unregister(("shop.web",))


def test_a_mesh_role_that_is_away_refuses_what_begins_and_lets_go_what_ends(world: World) -> None:
    async def work() -> None:
        with pytest.raises(CniError, match="cannot reach meshd"):
            await world.do("ADD", "web-1")
        with pytest.raises(CniError):
            await world.do("STATUS", "")
        await world.do("DEL", "web-1")

    asyncio.run(work())
    assert load(world.record).leaving == ("shop.web",)


def test_where_it_fails_open_a_container_begins_without_the_mesh_role(world: World) -> None:
    world.again(fails_open=True)
    asyncio.run(world.do("ADD", "web-1"))
    assert world.attaching.attached.keys() == {"shop.web"}


def test_what_changes_while_it_is_attached_is_told_afterwards(world: World) -> None:
    """The mesh role has heard of the former state last, otherwise."""
    proven, added = asyncio.Event(), list[str]()
    world.again(added=lambda: added.append("added"))

    async def handle(request: wire.ToMesh) -> wire.Message:
        world.told.append(request)
        await proven.wait()
        return wire.Done()

    async def work() -> None:
        adding = asyncio.ensure_future(world.do("ADD", "web-1"))
        await until(lambda: bool(world.told))
        (known,) = world.attaching.attached.values()
        now = msgspec.structs.replace(known, ready=False)
        await world.attaching.update([now])
        assert (len(world.told), added) == (1, [])
        proven.set()
        await adding
        assert added == ["added"]
        await world.attaching.update([now])
        assert world.attaching.attached == {"shop.web": now}

    world.handle = handle  # type: ignore[method-assign]
    run(world, work)
    assert len(world.told) == 2


def test_a_container_with_a_successor_is_not_unregistered(world: World) -> None:
    async def work() -> None:
        await world.do("ADD", "web-1")
        await world.do("ADD", "web-2")
        await world.do("DEL", "web-1")
        await world.do("DEL", "web-1")

    run(world, work)
    assert not any(isinstance(one, wire.Unregister) for one in world.told)


def test_messages_that_the_mesh_role_missed_are_sent_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attaching, "_BACKOFF", attaching.Backoff(0.01, 0.01))

    async def before() -> None:
        with pytest.raises(CniError):
            await world.do("ADD", "web-1")
        await world.do("DEL", "web-1")

    asyncio.run(before())
    world.again()

    async def work() -> None:
        running = asyncio.ensure_future(world.attaching.run())
        await until(lambda: not load(world.record).leaving)
        running.cancel()

    run(world, work)
    assert world.told == [wire.Unregister(("shop.web",))]


def test_a_container_that_vanished_is_let_go(world: World) -> None:
    async def work() -> None:
        await world.do("ADD", "web-1")
        world.netns.unlink()
        running = asyncio.ensure_future(world.attaching.run())
        await until(lambda: load(world.record) == Sandboxes())
        running.cancel()

    run(world, work)
    assert world.told[-1] == wire.Unregister(("shop.web",))


def test_only_what_is_no_valid_attachment_is_collected(
    world: World,
) -> None:
    async def work() -> None:
        await world.do("ADD", "web-1")
        await world.do("ADD", "db-1")
        await world.do("GC", "", Config())
        assert len(load(world.record).attached) == 2
        await world.do("GC", "", Config(valid=(Attachment("db-1"),)))

    run(world, work)
    known = load(world.record)
    assert (list(known.attached), known.leaving) == (["db-1"], ("shop.web",))


def test_what_was_found_and_cannot_be_told_is_not_attached(world: World) -> None:
    workload = Workload(uid="shop.web", name="web", namespace="shop", netns="/n")

    async def without() -> None:
        with pytest.raises(UnreachableError):
            await world.attaching.adopt("found-1", workload)
        assert world.attaching.attached == {}

    asyncio.run(without())

    async def work() -> None:
        await world.attaching.adopt("found-1", workload)
        await world.attaching.adopt("found-2", workload)

    run(world, work)
    assert [type(one) for one in world.told] == [wire.Register]
    assert list(load(world.record).attached) == ["found-1"]


def test_a_check_of_what_was_not_attached_is_refused(world: World) -> None:
    async def work() -> None:
        await world.do("ADD", "web-1")
        await world.do("CHECK", "web-1")
        with pytest.raises(CniError, match="not attached"):
            await world.do("CHECK", "web-2")

    run(world, work)


def test_a_record_that_cannot_be_written_registers_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise InvalidInputError("the disk is full")

    monkeypatch.setattr(attaching.sandboxes, "save", full)

    async def work() -> None:
        with pytest.raises(InvalidInputError):
            await world.do("ADD", "web-1")
        await world.do("DEL", "web-1")

    run(world, work)
    assert world.told == []


def test_a_workload_that_comes_back_waits_until_it_has_gone(world: World) -> None:
    order: list[str] = []
    gone = asyncio.Event()

    async def handle(request: wire.ToMesh) -> wire.Message:
        if isinstance(request, wire.Unregister):
            order.append("unregistering")
            await gone.wait()
            order.append("unregistered")
        else:
            order.append("registered")
        return wire.Done()

    async def work() -> None:
        await world.do("ADD", "web-1")
        ending = asyncio.ensure_future(world.do("DEL", "web-1"))
        await until(lambda: "unregistering" in order)
        coming = asyncio.ensure_future(world.do("ADD", "web-2"))
        await asyncio.sleep(0)
        gone.set()
        await ending
        await coming

    world.handle = handle  # type: ignore[method-assign]
    run(world, work)
    assert order == ["registered", "unregistering", "unregistered", "registered"]
    assert msgspec.structs.asdict(load(world.record))["leaving"] == ()
