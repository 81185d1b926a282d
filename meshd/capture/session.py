"""The session of capture.sock: takes ``Place``, sends ``Observed`` at each change.

Changes of systemd's units are answered, too; who makes them is given. So are questions for
connections that are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from meshd import wire
from meshd.base.errors import SystemRefusedError
from meshd.base.tasks import first_of
from meshd.capture.pods import open_connections
from meshd.capture.pods.keeper import Keeper
from meshd.capture.pods.namespaces import Pins
from meshd.model.workload import HostService
from meshd.settings import CaptureSettings
from meshd.wire import channel

Change = Callable[[wire.UnitRequest], Awaitable[wire.Message]]


async def _refuse(_request: wire.Message) -> wire.Message:
    raise SystemRefusedError("this process changes no units of systemd")


class CaptureService:
    """The service of capture.sock. A peer that disconnects changes nothing."""

    def __init__(
        self,
        settings: CaptureSettings,
        pins: Pins,
        *,
        fail_open: bool = False,
        served: Callable[[HostService], None] = lambda _: None,
        bypasses: Callable[[Mapping[str, HostService]], Mapping[str, str]] = lambda _: {},
        proxy_user: int = 0,
        change: Change = _refuse,
    ) -> None:
        """Begin to keep what is asked for; ``change`` changes units of systemd."""
        self._change = change
        self._pins = pins
        self._news: set[asyncio.Event] = set()
        self._keeper = Keeper(
            settings,
            pins,
            self._changed,
            fail_open=fail_open,
            served=served,
            bypasses=bypasses,
            proxy_user=proxy_user,
        )

    async def session(self, connection: channel.Connection[wire.ToCapture]) -> None:
        """Serve one peer, as long as it stays."""
        news = asyncio.Event()
        news.set()
        self._news.add(news)
        try:
            await first_of(self._receive(connection), self._tell(connection, news))
        finally:
            self._news.discard(news)

    async def close(self) -> None:
        """Stop; the kernel stays as it is."""
        await self._keeper.close()

    def _changed(self) -> None:
        for news in self._news:
            news.set()

    async def _receive(self, connection: channel.Connection[wire.ToCapture]) -> None:
        while (message := await connection.receive()) is not None:
            if isinstance(message, wire.Place):
                self._keeper.place(message.placements, host=message.host)
            elif isinstance(message, wire.ListConnections | wire.EndConnections):
                await connection.send(await open_connections.answer(self._pins, message))
            else:
                await connection.send(await self._change(message))

    async def _tell(
        self, connection: channel.Connection[wire.ToCapture], news: asyncio.Event
    ) -> None:
        while True:
            await news.wait()
            news.clear()
            await connection.send(wire.Observed(await self._keeper.observations()))
