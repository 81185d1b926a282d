"""Work in threads leaves nothing behind that only the collector would find."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Generator

import pytest

from meshd.base.errors import InvalidInputError
from meshd.base.threads import in_thread
from tests.waiting import PATIENCE


class Held:
    """Something large that work has."""


@pytest.fixture(autouse=True)
def _without_collector() -> Generator[None]:
    gc.disable()
    yield
    gc.enable()


def test_objects_of_failed_work_are_freed_at_once() -> None:
    gone = [threading.Event(), threading.Event()]

    def held(number: int) -> Held:
        found = Held()
        weakref.finalize(found, gone[number].set)
        return found

    def work(_: Held) -> None:
        _own = held(1)
        raise InvalidInputError("no")

    async def check() -> None:
        with pytest.raises(InvalidInputError, match="no"):
            await in_thread("failing", functools.partial(work, held(0)))

    asyncio.run(check())
    assert all(one.wait(PATIENCE) for one in gone)
