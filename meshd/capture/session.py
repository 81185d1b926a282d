"""The session of capture.sock: takes ``Place``, sends ``Observed`` at each change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from meshd import wire
from meshd.base.errors import InvalidInputError, UnreachableError
from meshd.capture.pods.keeper import Keeper
from meshd.capture.pods.namespaces import Pins
from meshd.model.workload import HostService
from meshd.settings import CaptureSettings
from meshd.wire import channel


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
    ) -> None:
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

    async def session(self, connection: channel.Connection) -> None:
        """Serve one peer, as long as it stays. Raises InvalidInputError for anything but
        ``Place``."""
        news = asyncio.Event()
        news.set()
        self._news.add(news)
        teller = asyncio.create_task(self._tell(connection, news))
        try:
            while (message := await connection.receive()) is not None:
                if not isinstance(message, wire.Place):
                    raise InvalidInputError("the capture role takes placements only")
                self._keeper.place(message.placements, host=message.host)
        finally:
            self._news.discard(news)
            teller.cancel()
            with contextlib.suppress(asyncio.CancelledError, UnreachableError):
                await teller

    async def close(self) -> None:
        """Stop; the kernel stays as it is."""
        await self._keeper.close()

    def _changed(self) -> None:
        for news in self._news:
            news.set()

    async def _tell(self, connection: channel.Connection, news: asyncio.Event) -> None:
        while True:
            await news.wait()
            news.clear()
            await connection.send(wire.Observed(await self._keeper.observations()))
