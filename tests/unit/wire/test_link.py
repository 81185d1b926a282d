"""What a process does about another one that does not answer, or not with messages."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from meshd import wire
from meshd.base.backoff import Backoff
from meshd.wire import link
from meshd.wire.link import Link

PATIENCE = 60.0


@dataclasses.dataclass(frozen=True)
class Waits(Backoff):
    """Waits of no length, written down, until ``enough`` of them have been asked for."""

    failures: list[int] = dataclasses.field(default_factory=list)
    enough: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def pause(self, failures: int) -> float:
        self.failures.append(failures)
        if len(self.failures) == 5:
            self.enough.set()
        return 0.0


def waits(said: bytes, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the failures in a row that a link counts at an end that says this and hangs up."""
    counted = Waits(0.0, 0.0)
    monkeypatch.setattr(link, "_BACKOFF", counted)

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """No task, of which the last might end before it has begun, and close nothing."""
        writer.write(said)
        writer.close()

    async def run() -> None:
        async with await asyncio.start_unix_server(answer, path), asyncio.timeout(PATIENCE):
            linked = asyncio.create_task(Link(path, lambda _: None).run())
            await counted.enough.wait()
            linked.cancel()
            await asyncio.gather(linked, return_exceptions=True)

    asyncio.run(run())
    return counted.failures[:5]


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"\0\0\0\1x"])
def test_an_end_that_speaks_nonsense_is_asked_less_and_less_and_named_once(
    said: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert waits(said, tmp_path / "s", monkeypatch) == [1, 2, 3, 4, 5]

    (record,) = caplog.records
    assert str(tmp_path / "s") in record.message
    assert vars(record)["MESHD_EVENT"] == "link"


def test_nonsense_after_a_message_is_no_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = wire.encode(wire.Done()) + b"\0\0\0\1x"

    assert waits(said, tmp_path / "s", monkeypatch) == [1, 2, 3, 4, 5]


def test_an_end_that_hangs_up_without_a_word_is_asked_less_and_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waits(b"", tmp_path / "s", monkeypatch) == [1, 2, 3, 4, 5]


def test_an_end_that_has_answered_is_asked_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waits(wire.encode(wire.Done()), tmp_path / "s", monkeypatch) == [1, 1, 1, 1, 1]
