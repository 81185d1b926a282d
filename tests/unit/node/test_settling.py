"""When a node settles, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.config.store import Store
from meshd.node import settling as module
from meshd.node.in_work import InWork
from meshd.node.settling import Settling
from tests.waiting import PATIENCE

FULL = SystemRefusedError("the disk is full")


class Node:
    """Settles with these results, one after the other, and then well."""

    def __init__(self, directory: Path, results: Iterable[Exception | None]) -> None:
        self._results = iter(results)
        self.settling = Settling()
        self.work = InWork(directory / "attempts.json", Store(directory / "config.d", directory))

    def settle(self) -> None:
        if error := next(self._results, None):
            raise error

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Settling]:
        task = asyncio.create_task(self.settling.run(self.settle, self.work))
        try:
            async with asyncio.timeout(PATIENCE):
                yield self.settling
        finally:
            task.cancel()


Run = Callable[[Iterable[Exception | None], Callable[[Settling], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(
        results: Iterable[Exception | None], check: Callable[[Settling], Awaitable[None]]
    ) -> None:
        async def all_of_it() -> None:
            async with Node(tmp_path, results).running() as settling:
                await check(settling)

        asyncio.run(all_of_it())

    return run


def test_it_settles_when_it_begins_and_after_each_change(run: Run) -> None:
    async def check(settling: Settling) -> None:
        await settling.after(0)
        settling.touch()
        await settling.after(1)
        assert (settling.count, settling.problem) == (2, "")

    run([], check)


def test_a_failed_change_is_tried_again_without_another_change(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)

    async def check(settling: Settling) -> None:
        assert await settling.wait(lambda: settling.problem == str(FULL), PATIENCE)
        assert await settling.wait(lambda: not settling.problem, PATIENCE)

    run([FULL, FULL], check)


@pytest.mark.parametrize("error", [FULL, AssertionError("oh")])
def test_a_reason_that_lasts_is_logged_once(
    run: Run, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(settling: Settling) -> None:
        for count in range(3):
            settling.touch()
            await settling.after(count)
            assert str(error) in settling.problem

    run([error] * 3, check)
    assert len(caplog.records) == 1


def test_waiting_ends_without_the_condition_when_time_is_over(run: Run) -> None:
    async def check(settling: Settling) -> None:
        assert not await settling.wait(lambda: False, 0.01)

    run([], check)


@pytest.mark.parametrize("error", [FULL, ValueError("broken")])
def test_an_unanswerable_request_is_logged_once_and_may_be_answered_later(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    settling, failures = Settling(), [error, error]

    def ask() -> str:
        if failures:
            raise failures.pop()
        return "an answer"

    assert [settling.answer(ask) for _ in range(3)] == [None, None, "an answer"]
    (record,) = caplog.records
    assert str(error) in record.getMessage()
    assert bool(record.exc_info) is isinstance(error, ValueError)
    failures.append(error)
    assert settling.answer(ask) is None
    assert len(caplog.records) == 2
