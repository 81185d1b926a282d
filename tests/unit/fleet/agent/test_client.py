"""A stream that ends leaves nothing behind of what was being read, and the server is told what is
used."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from meshd.base.attempts import Attempts
from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.fleet.server.in_force import IN_FORCE, NOTHING_YET
from meshd.xds.protocol import DeltaRequest, DeltaResponse
from tests.waiting import PATIENCE, eventually

URL = "test/v1/Thing"


def _decode(_: str, __: str, body: bytes) -> bytes:
    return body


def _nothing(*_: object) -> Any:
    return None


class _Call:
    """A stream, and its channel, on which a test is the server."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[DeltaResponse] = asyncio.Queue()
        self.heard: asyncio.Queue[DeltaRequest] = asyncio.Queue()
        self._is_writing = False

    def stream_stream(self, *_: object, **__: object) -> Any:
        def opened(**_: object) -> _Call:
            return self

        return opened

    async def initial_metadata(self) -> None: ...

    def done(self) -> bool:
        return False

    async def write(self, request: DeltaRequest) -> None:
        assert not self._is_writing  # gRPC would refuse it
        self._is_writing = True
        await asyncio.sleep(0)
        self._is_writing = False
        self.heard.put_nowait(request)

    def __aiter__(self) -> _Call:
        return self

    async def __anext__(self) -> DeltaResponse:
        return await self.told.get()

    async def hears(self, count: int) -> set[tuple[str, str]]:
        async with asyncio.timeout(PATIENCE):
            requests = [await self.heard.get() for _ in range(count)]
        assert self.heard.empty()
        return {(one.type_url, one.response_nonce) for one in requests}


def response(nonce: str, version: str) -> DeltaResponse:
    return DeltaResponse(type_url=URL, nonce=nonce, resources=[{"name": "a", "version": version}])


def test_the_server_hears_of_what_is_used_after_what_is_acknowledged() -> None:
    async def check() -> None:
        client = Client(
            *("node", [URL], Inbox(_decode)),
            connect=_nothing,
            explain=_nothing,
            taken=_nothing,
            changed=_nothing,
            heard=_nothing,
        )

        def connected() -> tuple[_Call, asyncio.Task[None]]:
            call: Any = _Call()
            return call, asyncio.create_task(client._subscribe(call))  # pyright: ignore[reportPrivateUsage]

        call, stream = connected()
        assert await call.hears(2) == {(IN_FORCE, ""), (URL, "")}
        for nonce in ("1", "2"):
            call.told.put_nowait(response(nonce, f"v{nonce}"))
            assert await call.hears(1) == {(URL, nonce)}
        client.used()
        assert await call.hears(1) == {(IN_FORCE, "2")}
        call.told.put_nowait(response("3", "v2"))  # it has that already
        assert await call.hears(2) == {(URL, "3"), (IN_FORCE, "3")}
        call.told.put_nowait(response("4", "v4"))
        assert await call.hears(1) == {(URL, "4")}
        stream.cancel()
        call, stream = connected()
        assert await call.hears(2) == {(IN_FORCE, NOTHING_YET), (URL, "")}
        client.used()
        assert await call.hears(1) == {(IN_FORCE, "")}
        stream.cancel()

    asyncio.run(check())


def test_what_comes_while_something_is_put_in_force_is_not_said_to_be() -> None:
    async def check() -> None:
        client = Client(
            *("node", [URL], Inbox(_decode)),
            connect=_nothing,
            explain=_nothing,
            taken=_nothing,
            changed=_nothing,
            heard=_nothing,
        )
        call: Any = _Call()
        stream = asyncio.create_task(client._subscribe(call))  # pyright: ignore[reportPrivateUsage]
        assert await call.hears(2) == {(IN_FORCE, ""), (URL, "")}

        async def told(nonce: str, version: str) -> None:
            call.told.put_nowait(response(nonce, version))
            assert await call.hears(1) == {(URL, nonce)}

        await told("1", "v1")
        use = client.using()
        await told("2", "v1")  # changes nothing
        client.used(use)
        assert await call.hears(1) == {(IN_FORCE, "2")}
        await told("3", "v3")
        use = client.using()
        await told("4", "v4")
        client.used(use)
        assert await call.hears(1) == {(IN_FORCE, "3")}
        use = client.using()
        stream.cancel()
        call = _Call()
        stream = asyncio.create_task(client._subscribe(call))  # pyright: ignore[reportPrivateUsage]
        assert await call.hears(2) == {(IN_FORCE, NOTHING_YET), (URL, "")}
        await told("5", "v5")
        client.used(use)  # of the stream before
        assert await call.hears(1) == {(IN_FORCE, NOTHING_YET)}
        client.used(client.using())
        assert await call.hears(1) == {(IN_FORCE, "5")}
        stream.cancel()

    asyncio.run(check())


def test_a_resource_in_decoding_when_its_stream_ends_is_struck_off_afterwards(
    tmp_path: Path,
) -> None:
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
