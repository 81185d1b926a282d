"""A node that has joined, and says to its server whatever it likes: on each method, malformed, huge
or slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc
import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from meshd.fleet.agent.remote import open_channel
from meshd.fleet.server.istio_ca import METHOD
from meshd.fleet.server.plane import NODES
from tests.node.test_killing_records import Joined, credentials_for, running
from tests.node.test_two_nodes import address, start_server
from tests.waiting import PATIENCE, Missing

if TYPE_CHECKING:
    from meshd.fleet.joining.node import Credentials
    from tests.node.node import Node

ADS: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
REGISTER: Final = f"/{NODES}/Register"
HUGE: Final = 15 * 1024 * 1024
"""Bytes; the server takes messages of up to 16 MiB."""
GROWN: Final = 400
"""MiB that the server's role may grow by."""


_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"


def request(**fields: object) -> bytes:
    made = discovery_pb2.DeltaDiscoveryRequest(**fields)  # pyright: ignore[reportArgumentType]
    return made.SerializeToString()


NAMES: Final = [f"n{number}" for number in range(200_000)]
SAID: Final = {
    "garbage": [(ADS, b"\xff" * 64), (REGISTER, b"\xff" * 64), (METHOD, b"\xff" * 64)],
    "nothing": [(ADS, b""), (REGISTER, b""), (METHOD, b"")],
    "huge": [(ADS, b"\x12" + b"a" * HUGE), (REGISTER, b"[" * HUGE), (METHOD, b"\n" * HUGE)],
    "too large": [(one, b"a" * 17 * 1024 * 1024) for one in (ADS, REGISTER, METHOD)],
    "deep": [(REGISTER, b"[" * 100_000 + b"]" * 100_000), (REGISTER, b'[{"a":' * 50_000)],
    "many workloads": [(REGISTER, json.dumps([{"uid": "a.b"}] * 100_000).encode())],
    "large numbers": [(REGISTER, b'[{"netns_cookie": ' + b"9" * 1_000_000 + b"}]")],
    "many names": [(ADS, request(type_url="a", resource_names_subscribe=NAMES))],
    "many versions": [
        (ADS, request(type_url="a", initial_resource_versions=dict.fromkeys(NAMES, "v")))
    ],
    "no such method": [(f"/{NODES}/Nothing", b""), ("/a/b", b"")],
}


def say(channel: grpc.aio.Channel, method: str, *messages: bytes) -> _Call:
    async def told() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    method_of: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    return method_of(told())


async def hear(call: _Call) -> None:
    """Until the server ends it, or has nothing to say."""
    with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(5):
            async for _ in call:
                pass
    call.cancel()


def role(server: Node) -> tuple[int, int]:
    """The process of the server's role, and how often it was restarted."""
    (found,) = (one for one in server.statuses().roles if one.name == "server")
    return found.pid, found.restarts


def resident(pid: int) -> int:
    """MiB."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") // 1024**2


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Node:
    return start_server(make, grace="600s")


def test_whatever_a_node_says_the_server_goes_on_and_serves_others(server: Node) -> None:
    joined = {name: credentials_for(server, name) for name in ("witness", "mallory")}
    write = server.write
    server.apply(write.dump(write.namespace("mesh", enrolled=True), write.service("harmless")))
    before = role(server)
    size = resident(before[0])

    async def check() -> None:
        witness = Joined(server, "witness", joined["witness"])

        def hears(*names: str) -> bool | Missing:
            missing = {"mesh/harmless", *names} - witness.heard_of
            return Missing(missing) if missing else True

        async def later(names: tuple[str, ...], what: str) -> None:
            await asyncio.to_thread(server.eventually, lambda: hears(*names), what, 3 * PATIENCE)

        async with running((witness,)):
            await later((), "the witness is served")
            await attack(server, joined["mallory"])
            await asyncio.to_thread(server.apply, write.dump(write.service("later")))
            await later(("mesh/later",), "the witness hears what is new")
            again = Joined(server, "mallory", joined["mallory"])
            async with running((again,)):
                await later(("mallory/mesh.mallory",), "and what the same node says rightly")

    asyncio.run(check())
    assert role(server) == before
    assert resident(before[0]) < size + GROWN


async def attack(server: Node, credentials: Credentials) -> None:
    channel = open_channel(address(server), credentials)
    try:
        for sent in SAID.values():
            async with asyncio.TaskGroup() as group:
                for method, message in sent:
                    group.create_task(hear(say(channel, method, message)))
        await unread(channel)
    finally:
        await channel.close(None)


async def unread(channel: grpc.aio.Channel) -> None:
    """Streams on which a node asks for everything, and never reads an answer."""
    asked = request(type_url="core/v1/Service", resource_names_subscribe=["*"])
    calls = [say(channel, ADS, *[asked] * 100) for _ in range(30)]
    await asyncio.gather(*(call.initial_metadata() for call in calls))
    for call in calls:
        call.cancel()
