"""What a server tells its nodes of the configuration."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, cast

import pytest

from meshd import wire
from meshd.api.write import to_json
from meshd.base.errors import InvalidInputError
from meshd.config.store import Store
from meshd.node import sharing as sharing_module
from meshd.node.in_work import InWork
from meshd.node.settling import Settling
from meshd.node.sharing import Encoded, Sharing
from meshd.wire.channel import IsWaiting
from meshd.wire.parts import Gathering
from tests.unit.node.world import remote, service
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from meshd.api.base import Key
    from meshd.model.workload import Workload


def test_only_objects_that_changed_are_encoded_again() -> None:
    encoded, web, db = Encoded(), service("web"), service("db")
    before = encoded.all({web.key: web, db.key: db})
    changed = service("web", "other")
    after = encoded.all({changed.key: changed, db.key: db})
    assert before == (to_json(web), to_json(db))
    assert after == (to_json(changed), to_json(db))
    assert after[1] is before[1]


def test_former_versions_of_an_object_are_forgotten() -> None:
    encoded, former = Encoded(), service("web")
    references = sys.getrefcount(former)
    encoded.all({former.key: former})
    assert sys.getrefcount(former) > references
    changed = service("web", "other")
    encoded.all({changed.key: changed})
    assert sys.getrefcount(former) == references


def no_digest(_: Key) -> str:
    return ""


class _Mesh:
    """The parts of a mesh role that sharing asks; ``failing``: the snapshot cannot be taken."""

    def __init__(self) -> None:
        self.settling = Settling()
        self.store = types.SimpleNamespace(
            objects={}, closed=(), given_up=(), standing=(), lost=(), digest_of=no_digest
        )
        self.elsewhere: tuple[Workload, ...] = ()
        self.further_problems: list[Callable[[], str]] = []
        self.failing = False

    def roster(self, node: str) -> tuple[Workload, ...]:
        if self.failing:
            raise ValueError("no snapshot")
        return (remote(node),)

    def hear_of(self, told: tuple[Workload, ...]) -> None:
        self.elsewhere = told

    async def hear_of_many(self, told: tuple[Workload, ...]) -> None:
        self.hear_of(told)


class _Follower:
    """The end of a follower, which stays whatever it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[wire.Message] = asyncio.Queue()
        self.refuses = False
        self._asked = False
        self._gathering = Gathering()

    async def receive(self) -> wire.Message:
        if self._asked:
            await asyncio.get_running_loop().create_future()
        self._asked = True
        return wire.Follow()

    async def send(self, message: wire.Message) -> None:
        if self.refuses:
            raise InvalidInputError("the message is too long")
        assert isinstance(message, wire.Shared)
        if whole := self._gathering.shared(message):
            self.told.put_nowait(whole)

    async def send_all(self, messages: Iterable[wire.Message]) -> None:
        for message in messages:
            await self.send(message)


def _sharing(mesh: _Mesh, directory: Path) -> Sharing:
    async def handle(_: wire.ToMesh, __: IsWaiting) -> wire.Message:
        return wire.Done()

    return Sharing(cast("Any", mesh), "here", directory / "elsewhere.json", handle)


def test_a_follower_is_told_when_a_snapshot_can_be_taken_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        mesh, follower = _Mesh(), _Follower()
        mesh.failing = True
        session = asyncio.create_task(_sharing(mesh, tmp_path).session(cast("Any", follower)))

        def settle() -> None:
            mesh.failing = mesh.settling.count < 2

        work = InWork(tmp_path / "attempts.json", Store(tmp_path / "config.d", tmp_path))
        settling = asyncio.create_task(mesh.settling.run(settle, work))
        async with asyncio.timeout(PATIENCE):
            while follower.told.empty():
                mesh.settling.touch()
                await asyncio.sleep(0)
        told = follower.told.get_nowait()
        assert isinstance(told, wire.Shared)
        assert (told.workloads, told.objects) == ((remote("here"),), ())
        for task in (session, settling):
            task.cancel()
        await asyncio.gather(session, settling, return_exceptions=True)

    asyncio.run(scenario())


def test_a_session_ends_when_it_cannot_tell_its_follower(tmp_path: Path) -> None:
    async def scenario() -> None:
        follower = _Follower()
        follower.refuses = True
        async with asyncio.timeout(PATIENCE):
            await _sharing(_Mesh(), tmp_path).session(cast("Any", follower))

    with pytest.raises(InvalidInputError, match="too long"):
        asyncio.run(scenario())


@pytest.mark.parametrize("others", [0, 2500])  # which are written in parts
def test_a_workload_that_is_left_out_is_kept_for_the_next_start(
    tmp_path: Path, others: int
) -> None:
    async def scenario() -> None:
        mesh, more = _Mesh(), (remote(f"w{number}") for number in range(others))
        told = (remote("good"), remote("deadly"), *more)
        heard: list[tuple[Workload, ...]] = []

        def hear_of(told: tuple[Workload, ...]) -> None:
            heard.append(told)
            mesh.elsewhere = told[:1]

        mesh.hear_of = hear_of
        sharing = _sharing(mesh, tmp_path)
        requests: list[wire.Message | None] = [wire.Follow(told), wire.Follow(told), None]

        async def receive() -> wire.Message | None:
            return requests.pop(0)

        follower: Any = _Follower()
        follower.receive = receive
        await sharing.session(follower)
        assert heard == [(), told]
        writing = asyncio.create_task(sharing.kept.run())
        written = (tmp_path / "elsewhere.json").exists
        await asyncio.to_thread(eventually, written, "the workloads are written")
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        _sharing(mesh, tmp_path)
        assert heard[2:] == [told]

    asyncio.run(scenario())


def test_a_report_that_comes_again_is_compared_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, heard, compared = _Mesh(), list[int](), list[threading.Thread]()
    mesh.hear_of = lambda told: heard.append(len(told))
    sharing = _sharing(mesh, tmp_path)
    reports = [tuple(remote(f"w{number}") for number in range(count)) for count in (3, 3, 4)]
    requests: list[wire.Message | None] = [*map(wire.Follow, reports), None]
    differ = sharing_module._differ  # pyright: ignore[reportPrivateUsage]

    def watched(*given: Any) -> bool:
        compared.append(threading.current_thread())
        return differ(*given)

    async def receive() -> wire.Message | None:
        return requests.pop(0)

    monkeypatch.setattr(sharing_module, "_differ", watched)
    follower: Any = _Follower()
    follower.receive = receive
    asyncio.run(sharing.session(follower))
    assert heard == [0, 3, 4]
    assert len(compared) == 3
    assert threading.main_thread() not in compared
