"""What is followed in the API server is known as it is there, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from meshd.base.backoff import Backoff
from meshd.kubernetes import watching
from meshd.kubernetes.client import Client
from meshd.kubernetes.objects import Pod
from meshd.kubernetes.watching import Watch
from tests.unit.kubernetes.api_server import ApiServer
from tests.waiting import PATIENCE


class Follower:
    """What a watch has told, put together."""

    def __init__(self, server: ApiServer, only: dict[str, str] | None = None) -> None:
        self.server = server
        self.pods: dict[str, Pod] = {}
        self.listings = 0
        self.watch = Watch(
            Client(server.access()),
            server.path,
            Pod,
            listed=self._listed,
            changed=self._changed,
            removed=self._removed,
            only=only,
        )

    def _listed(self, pods: Sequence[Pod]) -> None:
        self.listings += 1
        self.pods = {one.metadata.name: one for one in pods}

    def _changed(self, pod: Pod) -> None:
        self.pods[pod.metadata.name] = pod

    def _removed(self, pod: Pod) -> None:
        self.pods.pop(pod.metadata.name, None)

    async def until(self, condition: Callable[[], bool]) -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)

    async def agrees(self) -> None:
        """Wait until what is known is what is there."""

        def versions() -> bool:
            there = {
                key: one["metadata"]["resourceVersion"] for key, one in self.server.objects.items()
            }
            return there == {key: one.metadata.resource_version for key, one in self.pods.items()}

        await self.until(lambda: self.listings > 0 and versions())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_BACKOFF", Backoff(0.01, 0.02))


def follow(
    directory: Path,
    work: Callable[[Follower], Awaitable[None]],
    only: dict[str, str] | None = None,
    before: int = 0,
) -> Follower:
    async def live() -> Follower:
        server = ApiServer(directory)
        for number in range(before):
            await server.put(f"old-{number}")
        async with server.serving(), asyncio.timeout(PATIENCE):
            follower = Follower(server, only)
            running = asyncio.ensure_future(follower.watch.run())
            await work(follower)
            running.cancel()
            return follower

    return asyncio.run(live())


def test_what_was_there_and_what_comes_and_goes_is_known(tmp_path: Path) -> None:
    async def work(it: Follower) -> None:
        await it.agrees()
        await it.server.put("new", status={"conditions": [{"type": "Ready", "status": "True"}]})
        await it.server.put("old-1", metadata={"labels": {"a": "b"}})
        await it.server.delete("old-0")
        await it.agrees()

    found = follow(tmp_path, work, before=3)
    assert found.pods.keys() == {"old-1", "old-2", "new"}
    assert found.pods["new"].is_ready
    assert found.pods["old-1"].metadata.labels == {"a": "b"}
    assert found.listings == 1


def test_a_long_list_comes_in_pages_and_only_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAGE", 2)
    found = follow(tmp_path, Follower.agrees, {"fieldSelector": "spec.nodeName=n1"}, before=5)
    assert len(found.pods) == 5
    assert found.listings == 1
    assert {one["fieldSelector"] for one in found.server.asked} == {"spec.nodeName=n1"}


@pytest.mark.usefixtures("quick")
def test_a_watch_that_breaks_goes_on_where_it_was(tmp_path: Path) -> None:
    async def work(it: Follower) -> None:
        await it.agrees()
        for number in range(3):
            it.server.hang_up()
            await it.server.put(f"new-{number}")
            await it.agrees()

    assert follow(tmp_path, work, before=1).listings == 1


@pytest.mark.usefixtures("quick")
def test_what_went_while_nobody_listened_is_gone_although_no_event_says_so(tmp_path: Path) -> None:
    async def work(it: Follower) -> None:
        await it.agrees()
        await it.until(lambda: any("watch" in one for one in it.server.asked))
        it.server.refusal = 500, "away"
        it.server.hang_up()
        await it.server.delete("old-0")
        await it.server.put("new")
        it.server.forget()
        it.server.refusal = None
        await it.agrees()

    found = follow(tmp_path, work, before=2)
    assert found.pods.keys() == {"old-1", "new"}
    assert found.listings > 1


@pytest.mark.usefixtures("quick")
def test_what_is_known_stays_known_while_the_api_server_is_away(tmp_path: Path) -> None:
    async def live() -> None:
        server = ApiServer(tmp_path)
        await server.put("a")
        async with asyncio.timeout(PATIENCE):
            async with server.serving():
                follower = Follower(server)
                running = asyncio.ensure_future(follower.watch.run())
                await follower.agrees()
            await follower.until(lambda: bool(follower.watch.problem))
            assert follower.pods.keys() == {"a"}
            async with server.serving():
                await server.put("b")
                await follower.agrees()
                await follower.until(lambda: not follower.watch.problem)
            running.cancel()

    asyncio.run(live())


@pytest.mark.usefixtures("quick")
def test_an_object_that_cannot_be_read_costs_itself_alone(tmp_path: Path) -> None:
    async def work(it: Follower) -> None:
        await it.until(lambda: it.pods.keys() == {"old-0"})
        await it.server.put("broken-too", spec={"containers": "none"})
        await it.server.put("good")
        await it.until(lambda: it.pods.keys() == {"old-0", "good"})

    async def live() -> None:
        server = ApiServer(tmp_path)
        await server.put("old-0")
        await server.put("broken", status=7)
        async with server.serving(), asyncio.timeout(PATIENCE):
            follower = Follower(server)
            running = asyncio.ensure_future(follower.watch.run())
            await work(follower)
            running.cancel()

    asyncio.run(live())


@pytest.mark.usefixtures("quick")
def test_a_refusal_is_the_problem(tmp_path: Path) -> None:
    async def work(it: Follower) -> None:
        await it.until(lambda: bool(it.watch.problem))
        assert "pods is forbidden" in it.watch.problem
        it.server.refusal = None
        await it.agrees()

    async def live() -> None:
        server = ApiServer(tmp_path)
        server.refusal = 403, "pods is forbidden"
        async with server.serving(), asyncio.timeout(PATIENCE):
            follower = Follower(server)
            running = asyncio.ensure_future(follower.watch.run())
            await work(follower)
            running.cancel()

    asyncio.run(live())
