"""Bytes that are no message of ours."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.wire import channel

KNOWN = wire.encode(wire.Unregister(("default.web",)))[4:]


def test_encoded_messages_are_decoded_unchanged() -> None:
    assert wire.decode(KNOWN, wire.ANY) == wire.Unregister(("default.web",))


@given(st.binary())
def test_any_other_bytes_are_refused_in_our_words(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not a message of this version of meshd"):
        wire.decode(body, wire.ANY)


@given(st.integers(0, len(KNOWN) - 1), st.integers(0, 255))
def test_no_damage_of_a_message_raises_anything_else(place: int, byte: int) -> None:
    damaged = bytearray(KNOWN)
    damaged[place] = byte

    with contextlib.suppress(InvalidInputError):
        wire.decode(bytes(damaged), wire.ANY)


@pytest.mark.parametrize("wait", [math.nan, math.inf, -1.0, 1e300])
def test_a_time_that_no_timer_can_wait_is_refused(wait: float) -> None:
    with pytest.raises(InvalidInputError, match="wait"):
        wire.decode(wire.encode(wire.Apply((), wait=wait))[4:], wire.ANY)


def test_a_message_that_is_nested_too_deeply_is_refused() -> None:
    objects = b"\x82\xa4type\xa7Objects\xa7objects\x91" + b"\x81\xa1a" * 100_000 + b"\xc0"
    with pytest.raises(InvalidInputError):
        wire.decode(objects, wire.ANY)


def test_a_request_that_cannot_be_read_costs_itself_and_not_the_connection(tmp_path: Path) -> None:
    async def run() -> list[wire.AnyMessage | None]:
        path = tmp_path / "s.sock"
        server = await channel.listen(path, wire.ANY, channel.answering(_done), uids={os.geteuid()})
        reader, writer = await asyncio.open_unix_connection(path)
        async with server, channel.Connection(reader, writer, wire.ANY) as connection:
            answers: list[wire.AnyMessage | None] = []
            for frame in (b"\0\0\0\1x", wire.encode(wire.Status()), b"\xff\xff\xff\xff"):
                writer.write(frame)
                answers.append(await connection.receive())
            return [*answers, await connection.receive()]

    unread, read, too_large, after = asyncio.run(run())
    assert isinstance(unread, wire.Failed)
    assert isinstance(read, wire.Done)
    assert isinstance(too_large, wire.Failed)
    assert after is None


class _Noting:
    """Decodes, and notes by which thread."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def decode(self, body: bytes) -> wire.AnyMessage:
        self.threads.append(threading.current_thread())
        return wire.ANY.decode(body)


def test_a_large_message_is_decoded_beside_the_loop_and_in_its_turn() -> None:
    large, noting = wire.Failed("x" * 300_000), _Noting()
    unreadable = b"\0\x04\0\1" + b"x" * (256 * 1024 + 1)

    async def run() -> list[object]:
        reader = asyncio.StreamReader()
        for frame in (wire.encode(large), wire.encode(wire.Done()), unreadable):
            reader.feed_data(frame)
        reader.feed_data(wire.encode(wire.Status()))
        connection = channel.Connection(reader, cast("Any", None), cast("Any", noting))
        first = [await connection.receive(), await connection.receive()]
        with pytest.raises(InvalidInputError, match="not a message of this version"):
            await connection.receive()
        return [*first, await connection.receive()]

    assert asyncio.run(run()) == [large, wire.Done(), wire.Status()]
    own = threading.current_thread()
    assert [one is own for one in noting.threads] == [False, True, False, True]


def test_a_message_of_another_conversation_is_refused_and_the_next_is_answered(
    tmp_path: Path,
) -> None:
    async def done(_: wire.ToSupervisor) -> wire.Message:
        return wire.Done()

    async def run() -> list[wire.AnyMessage | None]:
        path = tmp_path / "s.sock"
        session = channel.answering(done)
        server = await channel.listen(path, wire.SUPERVISOR, session, uids={os.geteuid()})
        async with server, await channel.connect(path) as connection:
            answers: list[wire.AnyMessage | None] = []
            for request in (wire.Place(()), wire.Children()):
                await connection.send(request)
                answers.append(await connection.receive())
            return answers

    refused, answered = asyncio.run(run())
    assert isinstance(refused, wire.Failed)
    assert "Invalid value 'Place'" in refused.reason
    assert isinstance(answered, wire.Done)


async def _done(_: wire.AnyMessage) -> wire.Message:
    return wire.Done()
