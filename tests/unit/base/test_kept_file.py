"""A file that follows a state, whatever the disk does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from pathlib import Path

import msgspec
import pytest

from meshd.base import kept_file
from meshd.base.kept_file import KeptFile


async def until(path: Path, content: bytes) -> None:
    async with asyncio.timeout(60):
        while not path.is_file() or path.read_bytes() != content:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_the_newest_is_written_as_soon_as_it_can_be_and_trouble_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_file, "_AGAIN", 0.01)
    state = [b"one"]
    told: list[str] = []
    path = tmp_path / "state"

    async def scenario() -> None:
        kept = KeptFile(
            path, lambda: functools.partial(bytes, state[0]), lambda: told.append(kept.problem)
        )
        task = asyncio.create_task(kept.run())
        kept.touch()
        await until(path, b"one")
        path.unlink()
        path.mkdir()
        for state[0] in (b"two", b"three"):
            kept.touch()
            async with asyncio.timeout(60):
                while not kept.problem:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        path.rmdir()
        await until(path, b"three")
        async with asyncio.timeout(60):
            while kept.problem:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    wrong, right = told
    assert wrong.startswith(f"{path}: cannot be written: ")
    assert right == ""
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_file_that_cannot_be_used_is_moved_aside_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"\xff no JSON")
    decode = msgspec.json.Decoder(list[str]).decode

    assert kept_file.load(path, decode, "all begins anew") is None
    assert kept_file.load(path, decode, "all begins anew") is None

    (record,) = caplog.records
    assert "all begins anew" in record.message
    assert vars(record)["MESHD_EVENT"] == "record-lost"
    assert (tmp_path / "state.json.damaged-1").read_bytes() == b"\xff no JSON"
    assert str(tmp_path / "state.json.damaged-1") in record.message
    assert not path.exists()


def test_a_file_that_cannot_be_read_is_moved_before_it_is_written_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may hold what somebody has restored, under the wrong user."""
    (tmp_path / "state.json.damaged-1").write_text("another")
    path = tmp_path / "state.json"
    path.mkdir()

    assert kept_file.load(path, bytes.decode, "all begins anew") is None

    (record,) = caplog.records
    assert "Is a directory" in record.message
    assert record.message.endswith("state.json.damaged-2")
    assert not path.exists()
    assert (tmp_path / "state.json.damaged-2").is_dir()
    assert (tmp_path / "state.json.damaged-1").read_text() == "another"


def test_a_file_that_is_not_there_is_nothing_to_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept_file.load(tmp_path / "state.json", bytes.decode, "all begins anew") is None
    assert not caplog.records
