"""When the resolvers count as having read what was written for them."""

from __future__ import annotations

import asyncio

import pytest

from meshd.node import resolving
from meshd.node.resolving import Resolving
from meshd.settings import MeshSettings, Paths

PATIENCE = 60.0


def test_resolvers_of_which_some_are_late_each_time_are_heard_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a machine so busy that never all of them answer in time."""
    asked: list[str] = []

    async def knows(port: int, name: str, address: str, patience: float) -> bool:
        asked.append(name)
        return len(asked) % 3 == 0

    async def ask() -> None:
        done = asyncio.Event()
        paths = Paths.from_environment({"MESHD_HOME": "/nowhere"})
        found = Resolving(paths, MeshSettings(), done.set)
        found._written = frozenset(("127.0.0.1", f"mark-{index}") for index in range(4))  # pyright: ignore[reportPrivateUsage]
        found._news.set()  # pyright: ignore[reportPrivateUsage]
        asking = asyncio.create_task(found._ask())  # pyright: ignore[reportPrivateUsage]
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        asking.cancel()
        assert found.is_read

    monkeypatch.setattr(resolving, "knows", knows)
    asyncio.run(ask())
