"""A node that has joined says whatever it likes to its server, on each method: malformed, huge, or
without ever reading an answer. Others are served, and so is the node itself when it behaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from meshd.fleet.agent.remote import open_channel
from meshd.fleet.server import rosters
from meshd.fleet.server.istio_ca import METHOD
from meshd.fleet.server.plane import NODES
from tests.unit.fleet.server.test_plane import URL, WEB, Mesh, Node, eventually, running, things

ADS: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
REGISTER: Final = f"/{NODES}/Register"
_LARGE: Final = 15 * 1024 * 1024
"""Bytes; a server takes messages of up to 16 MiB."""
_NAMES: Final = [f"n{number}" for number in range(200_000)]

_MORE: Final = [f"n{number}" for number in range(700_000)]


def request(**fields: Any) -> bytes:
    return discovery_pb2.DeltaDiscoveryRequest(**fields).SerializeToString()


SAID: Final[dict[str, Sequence[tuple[str, bytes]]]] = {
    "garbage": [(one, b"\xff" * 64) for one in (ADS, REGISTER, METHOD)],
    "nothing": [(one, b"") for one in (ADS, REGISTER, METHOD)],
    "large": [(ADS, b"\x12" + b"a" * _LARGE), (REGISTER, b"[" * _LARGE), (METHOD, b"\n" * _LARGE)],
    "too large": [(one, b"a" * (17 * 1024 * 1024)) for one in (ADS, REGISTER, METHOD)],
    "deep": [(REGISTER, b"[" * 100_000 + b"]" * 100_000), (REGISTER, b'[{"a":' * 50_000)],
    "many workloads": [(REGISTER, json.dumps([{"uid": "a.b"}] * 100_000).encode())],
    "large numbers": [(REGISTER, b'[{"netns_cookie": ' + b"9" * 1_000_000 + b"}]")],
    "many names": [(ADS, request(type_url=URL, resource_names_subscribe=_NAMES))],
    "many versions": [
        (ADS, request(type_url=URL, initial_resource_versions=dict.fromkeys(_NAMES, "v")))
    ],
    "more versions than a server takes": [
        (ADS, request(type_url=URL, initial_resource_versions=dict.fromkeys(_MORE, "v")))
    ],
    "a large description of itself": [
        (ADS, request(node={"metadata": dict.fromkeys(_NAMES, "v")}, type_url=URL))
    ],
    "unknown answers": [
        (ADS, request(type_url=URL, response_nonce="7", error_detail={"message": "\x1b[2J" * 9999}))
    ],
    "no such method": [(f"/{NODES}/Nothing", b""), ("/a/b", b"")],
}


def say(channel: grpc.aio.Channel, method: str, *messages: bytes) -> Any:
    async def told() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    return channel.stream_stream(method)(told())


async def until_ended(call: Any) -> None:
    """The stream ends when all was said, if the server does not end it before."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass


@pytest.mark.parametrize("how", SAID)
def test_whatever_a_node_says_others_are_served(tmp_path: Path, how: str) -> None:
    @running
    async def check() -> None:
        mesh = Mesh(tmp_path)
        mesh.plane.publish(things(a="one"))
        async with mesh.serving(), _witness(mesh) as witness:
            mallory = await mesh.credentials("mallory")
            channel = open_channel(mesh.server, mallory)
            async with asyncio.TaskGroup() as group:
                for method, message in SAID[how]:
                    group.create_task(until_ended(say(channel, method, message)))
            await channel.close(None)
            mesh.plane.publish(things(a="two"))
            await eventually(lambda: dict(witness.inbox.values(URL)) == {"a": "two"})
            async with Node(mesh, mallory).running() as honest:
                honest.client.tell((WEB,))
                await eventually(lambda: dict(honest.inbox.values(URL)) == {"a": "two"})
                await eventually(lambda: "web" in _uids(mesh, "mallory"))

    check()


def test_streams_that_are_never_read_hold_up_nobody(tmp_path: Path) -> None:
    @running
    async def check() -> None:
        mesh = Mesh(tmp_path)
        mesh.plane.publish(things(**{f"n{number}": "x" * 1000 for number in range(1000)}))
        async with mesh.serving(), _witness(mesh) as witness:
            channel = open_channel(mesh.server, await mesh.credentials("mallory"))
            asked = request(type_url=URL, resource_names_subscribe=["*"])
            calls = [say(channel, ADS, *[asked] * 50) for _ in range(30)]
            await asyncio.gather(
                *(call.initial_metadata() for call in calls), return_exceptions=True
            )
            mesh.plane.publish(things(a="two"))
            await eventually(lambda: dict(witness.inbox.values(URL)) == {"a": "two"})
            for call in calls:
                call.cancel()
            await channel.close(None)

    check()


@contextlib.asynccontextmanager
async def _witness(mesh: Mesh) -> AsyncGenerator[Node]:
    async with Node(mesh, await mesh.credentials("witness")).running() as made:
        await eventually(lambda: made.inbox.values(URL))
        yield made


def _uids(mesh: Mesh, node: str) -> set[str]:
    return {one.uid for one in rosters.workloads_of(mesh.plane.rosters) if one.node == node}
