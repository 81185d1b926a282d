"""When the resolvers count as having read what was written for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
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
        found._marks = frozenset(("127.0.0.1", f"mark-{index}") for index in range(4))  # pyright: ignore[reportPrivateUsage]
        found._news.set()  # pyright: ignore[reportPrivateUsage]
        asking = asyncio.create_task(found._ask())  # pyright: ignore[reportPrivateUsage]
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        asking.cancel()
        assert found.is_read

    monkeypatch.setattr(resolving, "knows", knows)
    asyncio.run(ask())


def test_tables_that_cannot_be_written_are_refused_until_they_can(tmp_path: Path) -> None:
    changed: list[int] = []
    paths = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    found = Resolving(paths, MeshSettings(), lambda: changed.append(1))

    def follow() -> None:
        found.follow({}, ())
        found.finish()

    follow()  # there is no directory for them
    for _ in range(3):
        with pytest.raises(SystemRefusedError):
            follow()
        found.finish()
    assert (len(changed), found.is_read) == (1, False)
    paths.resolver_run.mkdir(parents=True)
    with pytest.raises(SystemRefusedError):
        follow()
    found.finish()
    follow()
    assert any(paths.resolver_run.rglob("hosts"))
