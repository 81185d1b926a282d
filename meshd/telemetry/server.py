"""The HTTP server: an address to listen on, and uvicorn without its own handling of signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from meshd.base.errors import SystemRefusedError


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone: the role decides when to stop."""
        yield

    async def main_loop(self) -> None:
        """Update the date of answers once a second; uvicorn's own loop wakes up ten times a
        second."""
        while not self.should_exit:
            await self.on_tick(0)
            await asyncio.sleep(1)


def bind(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises SystemRefusedError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SystemRefusedError(
            f"telemetry cannot listen on {address}:{port}: {error.strerror}; "
            "set telemetry.address and telemetry.port to what is free (port 0: any)"
        ) from None
    return listener


async def serve(app: Any, listener: socket.socket) -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    await _Server(config).serve(sockets=[listener])
