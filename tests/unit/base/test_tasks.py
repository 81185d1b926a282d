"""Tasks whose failures are seen."""

from __future__ import annotations

import asyncio
import logging

import pytest

from meshd.base import tasks


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def _fail() -> None:
    raise ValueError("broken")


def _faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if vars(one)["MESHD_EVENT"] == "fault"]


def test_the_first_that_fails_ends_the_others_and_is_raised() -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await _for_ever()
        finally:
            ended.append("other")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(tasks.first_of(other(), _fail()))
    assert ended == ["other"]


def test_the_first_that_ends_ends_the_others() -> None:
    async def soon() -> None: ...

    asyncio.run(tasks.first_of(_for_ever(), soon()))


def test_a_cancelled_task_stays_cancelled_though_another_fails_at_that_moment() -> None:
    async def fails_when_cancelled() -> None:
        try:
            await _for_ever()
        finally:
            raise ValueError("broken")

    async def scenario() -> None:
        both = asyncio.ensure_future(tasks.first_of(_for_ever(), fails_when_cancelled()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both

    asyncio.run(scenario())


def test_a_task_that_nobody_waits_for_says_that_it_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        await asyncio.wait([tasks.start(_fail(), "closing a channel")])
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert _faults(caplog) == [
        "closing a channel failed, by a fault of meshd: ValueError('broken')"
    ]


def test_a_task_that_is_kept_begins_again_and_says_a_failure_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "_AGAIN", tasks.Backoff(0.0, 0.0))
    begun, told = 0, list[str]()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 4:
            await _fail()

    async def scenario() -> None:
        await tasks.keep(work, "capturing web", told.append)

    asyncio.run(scenario())
    text = "capturing web failed, by a fault of meshd: ValueError('broken')"
    assert (begun, told, _faults(caplog)) == (4, [text] * 3, [text])
    assert caplog.records[-1].levelno == logging.ERROR


def test_a_task_that_is_kept_ends_when_it_is_cancelled() -> None:
    async def scenario() -> None:
        task = tasks.keep(_for_ever, "capturing web")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(scenario())
