"""A stream that ends leaves nothing behind of what was being read."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from meshd.base.attempts import Attempts
from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.xds.protocol import DeltaResponse
from tests.waiting import PATIENCE, eventually


def test_what_is_decoded_when_a_stream_ends_is_struck_off_afterwards(tmp_path: Path) -> None:
    is_decoding, may_end = threading.Event(), threading.Event()

    def decode(_: str, __: str, body: bytes) -> bytes:
        is_decoding.set()
        may_end.wait(PATIENCE)
        return body

    def nothing(*_: object) -> Any:
        return None

    async def check() -> None:
        client = Client(
            *("node", ["test/v1/Thing"], Inbox(decode, attempts)),
            connect=nothing,
            explain=nothing,
            taken=nothing,
            changed=nothing,
            heard=nothing,
        )
        response = DeltaResponse(type_url="test/v1/Thing", resources=[{"name": "a"}])
        taking = asyncio.create_task(client._take(response))  # pyright: ignore[reportPrivateUsage]
        await asyncio.to_thread(is_decoding.wait, PATIENCE)
        assert attempts.in_hand
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert attempts.in_hand
        may_end.set()
        await asyncio.to_thread(eventually, lambda: not attempts.in_hand, "nothing is in hand")

    attempts = Attempts(tmp_path / "attempts.json")
    asyncio.run(check())
    assert not (tmp_path / "attempts.json").exists()
