"""A daemon that answers what a test tells it to, on a real socket; and meshctl as people run it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.cli.main import run
from meshd.wire import channel
from tests.waiting import PATIENCE

Answer = Callable[[wire.AnyMessage], wire.Message]


class Daemon:
    """Listens in a thread of its own, and remembers what it was asked."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[wire.AnyMessage] = []
        self.answer: Answer = lambda _: wire.Done()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def says(self, message: wire.Message) -> None:
        """Whatever it is asked."""
        self.answer = lambda _: message

    def start(self) -> None:
        self._thread.start()
        session = channel.answering(self._handle)
        listening = channel.listen(self.socket, wire.ANY, session, uids={os.geteuid()})
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(PATIENCE)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _handle(self, request: wire.AnyMessage) -> wire.Message:
        self.asked.append(request)
        return self.answer(request)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "mesh.sock")
    daemon.start()
    yield daemon
    daemon.stop()


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Meshctl = Callable[..., Result]


@pytest.fixture
def meshctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Meshctl:
    """Runs meshctl against the socket of ``daemon``, which need not be there."""

    def call(*arguments: str) -> Result:
        code = run(["--socket", str(tmp_path / "mesh.sock"), *arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call
