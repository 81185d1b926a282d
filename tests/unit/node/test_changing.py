"""A change is checked in a thread, and stored only for whoever still waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.api.base import Key, Object
from meshd.base.errors import MeshdError, NotReadyError, UnansweredError
from meshd.config import requests
from meshd.config.applied import Applied
from meshd.config.moment import Transaction
from meshd.config.store import Store
from meshd.node.api import Control
from meshd.node.changing import Changing
from meshd.node.in_force import told
from meshd.node.mesh import Mesh
from meshd.registry import snapshots
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings
from meshd.wire import channel
from tests.waiting import PATIENCE

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec: {host: db}
"""
KEY = Key("DestinationRule", "shop", "db")
APPLY = wire.Apply((("rule.yaml", RULE),))
DELETE = wire.DeleteNamed((wire.Named("DestinationRule", ("db",)),), "shop")


class Stop:
    """Stops a thread at one point until it is let."""

    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.let = threading.Event()

    def __call__(self) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.is_there.set()
        assert self.let.wait(PATIENCE)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.is_there.wait, PATIENCE)


@pytest.fixture
def mesh(paths: Paths) -> Mesh:
    return assembled(Settings(), paths)


def stored(paths: Paths) -> bool:
    """Return whether the rule would be there after a restart."""
    return KEY in Store(paths.config_directory, paths.lib).objects


@contextlib.asynccontextmanager
async def serving(mesh: Mesh, paths: Paths) -> AsyncGenerator[Path]:
    """Run what answers meshctl; yield its socket."""
    path = paths.socket("mesh")
    control = Control(mesh, Settings(), paths)
    session = channel.answering_who_waits(control.handle)
    server = await channel.listen(path, wire.MESH, session, uids={0})
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(PATIENCE):
        started = [
            tasks.create_task(mesh.publishing.run()),
            tasks.create_task(mesh.settling.run(mesh.reconciler.settle, mesh.work)),
        ]
        yield path
        server.close()
        for task in started:
            task.cancel()


async def gone(path: Path, request: wire.Message, until: Callable[[], Awaitable[object]]) -> None:
    """Ask, and hang up once something is so."""
    async with await channel.connect(path) as connection:
        await connection.send(request)
        await until()


async def answered(path: Path) -> None:
    """Wait until all that was asked before is over: changes are made one after the other."""
    await channel.call(path, wire.Apply((("other.yaml", RULE.replace("db", "other")),)))


async def apply_and_go(mesh: Mesh, paths: Paths, stop: Stop) -> None:
    """Apply an object, hang up when the change has come to a point, and wait until it is over."""
    async with serving(mesh, paths) as path:
        await gone(path, APPLY, stop.reached)
        stop.let.set()
        await answered(path)


def test_a_change_whose_client_goes_while_it_is_checked_is_not_stored(
    mesh: Mesh, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, judged = Stop(), requests.judged

    def slow(*arguments: Any) -> object:
        if stop.let.is_set():
            return judged(*arguments)
        stop()
        return judged(*arguments)

    monkeypatch.setattr(requests, "judged", slow)

    asyncio.run(apply_and_go(mesh, paths, stop))
    assert KEY not in mesh.store.objects
    assert not stored(paths)


@pytest.mark.parametrize("change", [APPLY, DELETE], ids=["apply", "delete"])
def test_a_change_whose_client_goes_while_it_is_written_is_in_force_at_once_and_after_a_restart(
    mesh: Mesh, paths: Paths, monkeypatch: pytest.MonkeyPatch, change: wire.Message
) -> None:
    stop, write = Stop(), Store.write
    is_applied = change is APPLY

    def slow(store: Store, transaction: Transaction) -> Applied:
        stop()
        return write(store, transaction)

    async def check() -> None:
        async with serving(mesh, paths) as path:
            if not is_applied:
                await channel.call(path, APPLY)
            monkeypatch.setattr(Store, "write", slow)
            await gone(path, change, stop.reached)
            stop.let.set()
            await answered(path)
            assert (KEY in mesh.store.objects) is is_applied

    asyncio.run(check())
    assert stored(paths) is is_applied


def test_a_change_whose_client_goes_while_it_waits_for_another_change_is_not_stored(
    mesh: Mesh, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, write = Stop(), Store.write

    def slow(store: Store, transaction: Transaction) -> Applied:
        stop()
        return write(store, transaction)

    monkeypatch.setattr(Store, "write", slow)

    async def check() -> None:
        async with serving(mesh, paths) as path, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(answered(path))
            await stop.reached()
            await gone(path, APPLY, lambda: asyncio.sleep(0))
            stop.let.set()
            await first
            await answered(path)
            assert KEY not in mesh.store.objects

    asyncio.run(check())


def test_a_change_whose_client_goes_before_a_snapshot_is_taken_is_not_stored(
    mesh: Mesh, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    take = snapshots.take

    def slow(*arguments: Any, **named: Any) -> object:
        stop()
        return take(*arguments, **named)

    monkeypatch.setattr(snapshots, "take", slow)

    asyncio.run(apply_and_go(mesh, paths, stop))
    assert KEY not in mesh.store.objects


def test_a_client_that_waits_is_answered_when_its_change_is_stored(
    mesh: Mesh, paths: Paths
) -> None:
    async def check() -> None:
        async with serving(mesh, paths) as path:
            answer = await channel.call(path, APPLY)
            assert isinstance(answer, wire.Changed)
            assert stored(paths)

    asyncio.run(check())


def test_a_client_is_told_that_a_change_was_not_answered(paths: Paths) -> None:
    async def silent(connection: channel.Connection[wire.ToMesh]) -> None:
        await connection.receive()
        await asyncio.sleep(PATIENCE)

    async def check() -> None:
        server = await channel.listen(paths.socket("mesh"), wire.MESH, silent, uids={0})
        with pytest.raises(UnansweredError, match="did not answer"):
            await channel.call(paths.socket("mesh"), APPLY, timeout=0.05)
        server.close()

    asyncio.run(check())


def test_a_change_is_checked_again_if_files_change_meanwhile(
    mesh: Mesh, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, judged = Stop(), requests.judged

    def slow(*arguments: Any) -> object:
        stop()
        return judged(*arguments)

    monkeypatch.setattr(requests, "judged", slow)

    async def check() -> wire.Message:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(Changing(mesh).change(APPLY))
            await stop.reached()
            (paths.config_directory / "rule.yaml").write_text(RULE)
            mesh.store.refresh()
            stop.let.set()
        return asked.result()

    answer = asyncio.run(check())
    assert isinstance(answer, wire.Rejected)
    assert "is in the file" in str(answer.findings[0])


def test_a_change_that_cannot_be_checked_in_time_is_not_stored(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STORED_WITHIN", -1.0)
    with pytest.raises(NotReadyError, match="nothing was stored"):
        asyncio.run(Changing(mesh).change(APPLY))
    assert KEY not in mesh.store.objects


def test_addresses_that_are_written_while_a_change_is_stay_and_the_change_too(
    mesh: Mesh, paths: Paths
) -> None:
    store = mesh.store
    transaction = store.moment.put(requests_of(mesh))
    store.take_addresses(store.write_addresses({"db": ("240.240.0.1",)}))
    store.adopt(store.write(transaction))
    store.tell()
    after = Store(paths.config_directory, paths.lib)
    assert after.addresses == store.addresses == {"db": ("240.240.0.1",)}
    assert KEY in after.objects


def requests_of(mesh: Mesh) -> list[Object]:
    found = requests.judged(mesh.store.moment, APPLY)
    assert isinstance(found, requests.Judged)
    return [found.transaction.after.objects[KEY]]


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        ("VirtualService shop/mine is left out, because it", True),
        ("VirtualService shop/theirs is left out, because it", False),
        ("VirtualService shop/other is left out, because it", True),
        (
            "VirtualService shop/theirs is left out: VirtualService shop/mine has",
            True,
        ),
    ],
)
def test_concurrent_changes_are_reported_to_those_who_made_them(
    line: str, *, is_told: bool
) -> None:
    mine, theirs = (Key("VirtualService", "shop", name) for name in ("mine", "theirs"))
    assert told([line], [mine], [theirs]) == ((line,) if is_told else ())


def test_a_change_that_is_cancelled_while_it_is_written_is_not_lost_by_the_next(
    mesh: Mesh, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, write = Stop(), Store.write

    def slow(store: Store, transaction: Transaction) -> Applied:
        if KEY in transaction.after.objects and not stop.let.is_set():
            stop()
        return write(store, transaction)

    async def check() -> None:
        changing = Changing(mesh)
        monkeypatch.setattr(Store, "write", slow)
        first = asyncio.create_task(changing.change(APPLY))
        await stop.reached()
        first.cancel()
        other = wire.Apply((("other.yaml", RULE.replace("name: db", "name: other")),))
        second = asyncio.create_task(changing.change(other))
        # Time for the second to be checked before the first is written.
        await asyncio.wait((second,), timeout=0.3)
        stop.let.set()
        await second
        assert {key.name for key in mesh.store.objects} == {"db", "other"}
        assert stored(paths)

    asyncio.run(check())


def test_a_failing_check_leaves_the_next_change_free(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> object:
        raise AssertionError("oh")

    async def check() -> None:
        changing = Changing(mesh)
        with monkeypatch.context() as patched, pytest.raises(AssertionError):
            patched.setattr(requests, "judged", fails)
            await changing.change(APPLY)
        with contextlib.suppress(MeshdError):
            await changing.change(APPLY)
        assert KEY in mesh.store.objects

    asyncio.run(check())
