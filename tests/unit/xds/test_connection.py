"""The timers of a connection, whatever else happens on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio

from meshd.xds.connection import Connection, Deadlines
from meshd.xds.exchange import Request
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, Resource, Resources
from meshd.xds.server import Member
from tests.waiting import PATIENCE

_SOON = 0.05


class _Timers:
    """Timers that a test sets, and what they have called."""

    def __init__(self) -> None:
        self.wanted: dict[Callable[[], None], float] = {}
        self.called: list[str] = []

    def asked(self) -> dict[Callable[[], None], float]:
        return self.wanted

    def offer(self) -> None:
        self.called.append("offer")

    def stop(self) -> None:
        self.called.append("stop")


class _Silent:
    """A client that says nothing."""

    async def read(self) -> object:
        return await asyncio.get_running_loop().create_future()

    async def write(self, message: object) -> None: ...


class _Talking(_Silent):
    """A client that says something all the time, until it is told to hang up."""

    def __init__(self, timers: _Timers) -> None:
        self._timers = timers

    async def read(self) -> object:
        await asyncio.sleep(0)
        return grpc.aio.EOF if self._timers.called else "word"


def test_asking_again_does_not_postpone_a_deadline() -> None:
    timers = _Timers()
    deadlines = Deadlines(timers.asked)
    assert deadlines.next(0.0) is None
    timers.wanted = {timers.offer: 5.0}
    assert [deadlines.next(now) for now in (1.0, 3.0, 5.9)] == [6.0, 6.0, 6.0]
    deadlines.call(5.9)
    assert timers.called == []
    deadlines.call(6.0)
    assert timers.called == ["offer"]


def test_the_time_begins_anew_after_a_call_and_after_an_interruption() -> None:
    timers = _Timers()
    deadlines = Deadlines(timers.asked)
    timers.wanted = {timers.offer: 5.0}
    deadlines.next(0.0)
    deadlines.call(5.0)
    assert deadlines.next(7.0) == 12.0
    timers.wanted = {}
    assert deadlines.next(8.0) is None
    timers.wanted = {timers.offer: 5.0}
    assert deadlines.next(9.0) == 14.0


def test_one_timer_neither_postpones_nor_ends_another() -> None:
    timers = _Timers()
    deadlines = Deadlines(timers.asked)
    timers.wanted = {timers.offer: 5.0}
    deadlines.next(0.0)
    timers.wanted = {timers.stop: 5.0, timers.offer: 5.0}
    assert deadlines.next(3.0) == 5.0
    deadlines.call(5.0)
    assert timers.called == ["offer"]
    assert deadlines.next(5.0) == 8.0
    deadlines.call(8.0)
    assert timers.called == ["offer", "stop"]


def test_a_timer_ends_on_a_connection_that_is_rung_all_the_time() -> None:
    async def scenario() -> list[str]:
        timers = _Timers()
        timers.wanted = {timers.offer: _SOON}
        connection = Connection[object, object](_Silent(), lambda: None, timers.asked)
        serving = asyncio.create_task(connection.serve(_take))
        async with asyncio.timeout(PATIENCE):
            while not timers.called:
                connection.ring()
                await asyncio.sleep(0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return timers.called

    assert asyncio.run(scenario()) == ["offer"]


def test_a_timer_ends_on_a_connection_whose_client_talks_all_the_time() -> None:
    async def scenario() -> list[str]:
        timers = _Timers()
        timers.wanted = {timers.offer: _SOON}
        async with asyncio.timeout(PATIENCE):
            connection = Connection[object, object](_Talking(timers), lambda: None, timers.asked)
            await connection.serve(_take)
        return timers.called

    assert asyncio.run(scenario())[0] == "offer"


async def _take(_: object) -> None: ...


def test_refused_listeners_are_offered_again_although_new_clusters_wait_for_endpoints() -> None:
    listener = Resource(LISTENER, "l", "1", b"l")
    first = Resources.of([Resource(CLUSTER, "a", "1", b"a"), listener])
    member = Member()
    stream = member.stream
    stream.replace(first)
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    while (response := stream.next()) is not None:
        error = "in use" if response.type_url == LISTENER else None
        stream.receive(Request(response.type_url, nonce=response.nonce, error=error))
    assert list(member.timers()) == [stream.offer_again]
    waiting = Resource(CLUSTER, "b", "1", b"b", "b")
    endpoints = Resource(ENDPOINTS, "b", "1", b"b")
    stream.replace(Resources.of([*first.of_type(CLUSTER).values(), listener, waiting, endpoints]))
    stream.next()
    assert member.timers().keys() == {stream.stop_waiting, stream.offer_again}
