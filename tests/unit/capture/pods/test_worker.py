"""What becomes of a workload's task when the kernel refuses something."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from meshd.capture.pods.keeper import Keeper
from meshd.capture.pods.namespaces import Pin, Pins
from meshd.settings import CaptureSettings
from tests.waiting import PATIENCE

UID = "mesh.web"


class Refusing(Pins):
    """It has one pin, of which it can tell only after some errors."""

    def __init__(self, directory: Path, *errors: Exception) -> None:
        super().__init__(directory)
        self.errors = list(errors)
        self.released = asyncio.Event()

    def list_pins(self) -> tuple[str, ...]:
        return () if self.released.is_set() else (UID,)

    def find(self, uid: str) -> Pin | None:
        if self.errors:
            raise self.errors.pop()
        return None

    def unpin(self, uid: str) -> None:
        self.released.set()


async def released(pins: Refusing, *, rounds: int = 1) -> None:
    keeper = Keeper(CaptureSettings(), pins)
    try:
        for _ in range(rounds):
            keeper.place([], host=False)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            await pins.released.wait()
    finally:
        await keeper.close()


def test_a_worker_lives_on_when_there_are_no_more_sockets(tmp_path: Path) -> None:
    asyncio.run(released(Refusing(tmp_path, OSError(errno.EMFILE, "too many open files"))))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_ended_is_started_again(tmp_path: Path) -> None:
    asyncio.run(released(Refusing(tmp_path, RuntimeError("a mistake")), rounds=2))
