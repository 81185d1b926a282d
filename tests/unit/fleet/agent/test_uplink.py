"""The mesh role's end of its streams with the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from meshd.fleet.agent.uplink import open_channel
from tests.waiting import PATIENCE


def test_a_channel_shares_no_connection_and_no_pause_between_attempts_with_another(
    tmp_path: Path,
) -> None:
    """gRPC shares both or none. Earlier channels are known to it until Python collects them."""
    path = tmp_path / "uplink.sock"

    async def check(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                channel = await stack.enter_async_context(open_channel(path))
                channel.get_state(try_to_connect=True)
                accepting = loop.sock_accept(listener)
                connection, _ = await asyncio.wait_for(accepting, PATIENCE)
                stack.enter_context(connection)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        asyncio.run(check(listener))
