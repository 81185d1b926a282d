"""Long work is carried out in a thread, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from meshd import wire
from meshd.compile.replacement.isolation import Isolating
from meshd.model.workload import Workload
from meshd.node import background as module
from meshd.node.api import Control
from meshd.node.background import Background
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from meshd.node.mesh import Mesh


class Work:
    """Doubles numbers, as often as it is let."""

    def __init__(self) -> None:
        self.number = 0
        self.made: list[int] = []
        self.let = threading.Semaphore(0)
        self.begun = 0
        self.fails = False
        self.refuses = False
        self.background = Background("doubling", self._begin, self._done)
        self._news = asyncio.Event()

    def _begin(self) -> Callable[[], int]:
        number, self.begun = self.number, self.begun + 1
        self._news.set()

        def double() -> int:
            assert self.let.acquire(timeout=PATIENCE)
            if self.fails:
                raise AssertionError("oh")
            return 2 * number

        return double

    def _done(self, made: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        if self.refuses:
            raise KeyError(made)
        self.made.append(made)
        self._news.set()

    def ask(self, number: int) -> None:
        self.number = number
        self.background.ask()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()
            self._news.clear()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.background.run())
        try:
            async with asyncio.timeout(PATIENCE):
                yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def test_one_job_runs_at_a_time_and_the_next_takes_the_newest() -> None:
    async def check() -> None:
        work = Work()
        async with work.running():
            work.ask(1)
            await work.until(lambda: work.begun == 1)
            for number in (2, 3):
                work.ask(number)
                await asyncio.sleep(0)
            assert (work.begun, work.background.busy) == (1, True)
            work.let.release(2)
            await work.until(lambda: len(work.made) == 2)
            assert (work.made, work.background.busy) == ([2, 6], False)

    asyncio.run(check())


def test_a_job_that_fails_is_reported_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)

    async def check() -> None:
        work = Work()
        work.fails = True
        async with work.running():
            work.ask(1)
            work.let.release(2)
            await work.until(lambda: work.begun == 3)
            assert "doubling failed, by a fault of meshd: AssertionError" in work.background.problem
            work.fails = False
            work.let.release()
            await work.until(lambda: work.made == [2])
            assert work.background.problem == ""

    asyncio.run(check())
    assert len(caplog.records) == 1


def test_a_result_that_cannot_be_taken_over_is_a_failure_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)

    async def check() -> None:
        work = Work()
        work.refuses = True
        async with work.running():
            work.ask(1)
            work.let.release()
            await work.until(lambda: work.begun == 2)
            assert (work.background.busy, work.background.finished) == (True, 0)
            work.refuses = False
            work.let.release()
            await work.until(lambda: work.made == [2])
            assert (work.background.problem, work.background.finished) == ("", 1)

    asyncio.run(check())


def test_a_result_counts_for_what_was_asked_before_its_job_began() -> None:
    async def check() -> None:
        work = Work()
        async with work.running():
            work.ask(1)
            await work.until(lambda: work.begun == 1)
            work.ask(2)
            work.let.release()
            await work.until(lambda: work.begun == 2)
            assert (work.background.asked, work.background.finished) == (2, 1)

    asyncio.run(check())


def test_the_end_of_a_job_is_told_in_a_step_after_its_result() -> None:
    told: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        told.append((what, background.busy))

    def done(_: int) -> None:
        note("done")
        asyncio.get_running_loop().call_soon(note, "others")

    def ended() -> None:
        note("ended")
        is_over.set()

    background = Background("counting", lambda: lambda: 1, done, ended)
    is_over = asyncio.Event()

    async def check() -> None:
        running = asyncio.create_task(background.run())
        background.ask()
        await asyncio.wait_for(is_over.wait(), PATIENCE)
        await asyncio.sleep(0)
        assert not background.busy
        running.cancel()

    asyncio.run(check())
    assert told == [("done", True), ("others", True), ("ended", True)]


def test_a_job_that_runs_at_the_end_is_abandoned() -> None:
    work = Work()

    async def check() -> None:
        async with work.running():
            work.ask(1)
            await work.until(lambda: work.begun == 1)

    asyncio.run(check())
    work.let.release()
    assert work.made == []


# ---- the mesh role


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Compilations end when this event is set."""
    opened, compile_ = threading.Event(), Isolating.compile

    def waits(isolating: Isolating[Any], *given: Any) -> object:
        assert opened.wait(PATIENCE)
        return compile_(isolating, *given)

    monkeypatch.setattr(Isolating, "compile", waits)
    yield opened
    opened.set()


def test_the_mesh_role_answers_while_it_compiles(paths: Paths, gate: threading.Event) -> None:
    web = Workload(uid="shop.web", name="web", namespace="shop", netns="/netns", enrolled=True)

    async def check() -> None:
        mesh = assembled(Settings(), paths)
        control = Control(mesh, Settings(), paths)
        mesh.reconciler.observed(())
        async with asyncio.timeout(PATIENCE), running(mesh):
            assert await mesh.settling.wait(lambda: mesh.has_read(1), PATIENCE)
            assert mesh.publishing.busy
            await control.handle(wire.Register((web,), wait=0))
            told = await control.handle(wire.Status())
            assert isinstance(told, wire.Statuses)
            assert [row.uid for row in told.workloads] == [web.uid]
            explained = await control.handle(wire.Explain(web.name, "db", namespace="shop"))
            assert isinstance(explained, wire.Message)
            assert mesh.publishing.published is None
            gate.set()
            assert await mesh.settling.wait(lambda: mesh.publishing.published is not None, PATIENCE)

    asyncio.run(check())


@contextlib.asynccontextmanager
async def running(mesh: Mesh) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as tasks:
        started = [
            tasks.create_task(mesh.publishing.run()),
            tasks.create_task(mesh.settling.run(mesh.reconciler.settle, mesh.work)),
        ]
        yield
        for task in started:
            task.cancel()
