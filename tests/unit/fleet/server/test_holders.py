"""How many streams of a kind a node may have open."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from meshd.base.errors import InvalidInputError
from meshd.fleet.server import holders


@pytest.mark.parametrize(("instance", "most"), [("one", 1), ("", 4)])
def test_a_node_has_a_bounded_number_of_streams_of_a_kind(
    monkeypatch: pytest.MonkeyPatch, instance: str, most: int
) -> None:
    monkeypatch.setattr(holders, "_PATIENCE", 0.01)

    async def run() -> int:
        held, opened = holders.Holders(), 0
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(InvalidInputError):
                while opened < 100:
                    await stack.enter_async_context(held.held("a", instance, "register"))
                    opened += 1
            await stack.enter_async_context(held.held("a", instance, "delta"))
            await stack.enter_async_context(held.held("b", instance, "register"))
        await stack.enter_async_context(held.held("a", instance, "register"))
        await stack.aclose()
        return opened

    assert asyncio.run(run()) == most
