"""An agent's streams by way of the process that has the node's key."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from meshd import wire
from meshd.fleet.agent import uplink
from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.fleet.joining.node import Credentials, NodeFile
from meshd.fleet.server.istio_ca import METHOD
from tests.unit.fleet.server.test_plane import URL, WEB, Mesh, decode, eventually, running, things


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


class Agent:
    """The client has no credentials: only the uplink does."""

    def __init__(self, mesh: Mesh, credentials: Credentials) -> None:
        self.mesh = mesh
        self.file = NodeFile(mesh.directory / "node.pem")
        self.file.save(credentials)
        self.socket = mesh.directory / "uplink.sock"
        self.inbox = Inbox(decode)
        self.client = Client(
            "a",
            (URL,),
            self.inbox,
            connect=lambda: uplink.open_channel(self.socket),
            explain=lambda error: uplink.explain(error, self.socket, mesh.server, time.time()),
            taken=self._used,
            changed=lambda: None,
            heard=lambda: None,
        )

    def _used(self) -> None:
        self.client.used()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Agent]:
        listening = uplink.Uplink(self.mesh.server, NodeFile(self.mesh.directory / "node.pem"))
        await listening.start(self.socket)
        task = asyncio.create_task(self.client.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await listening.stop()


def held(agent: Agent) -> dict[str, Any]:
    return dict(agent.inbox.values(URL))


@running
async def test_both_streams_go_to_the_server_by_the_nodes_certificate(mesh: Mesh) -> None:
    async with mesh.serving(), Agent(mesh, await mesh.credentials("a")).running() as agent:
        mesh.plane.publish(things(x="one"))
        agent.client.tell((WEB,))
        await eventually(lambda: held(agent) == {"x": "one"})
        await eventually(lambda: list(mesh.plane.rosters) == ["a"])
        assert agent.client.connected


@running
async def test_a_server_that_is_away_is_named_and_found_again(mesh: Mesh) -> None:
    async with mesh.serving():
        mesh.plane.publish(things(x="one"))
        agent = Agent(mesh, await mesh.credentials("a"))
    async with agent.running():
        await eventually(lambda: "does not answer: Connection refused" in agent.client.problem)
        assert not agent.client.connected
        mesh.plane = mesh.new_plane()
        mesh.plane.publish(things(x="two"))
        async with mesh.serving():
            await eventually(lambda: held(agent) == {"x": "two"})


@running
async def test_a_removed_node_is_told_why_it_is_refused(mesh: Mesh) -> None:
    async with mesh.serving(), Agent(mesh, await mesh.credentials("a")).running() as agent:
        await eventually(lambda: agent.client.connected)
        await mesh.registration.answer(wire.RemoveNode("a"))
        await mesh.plane.expel("a")
        await eventually(lambda: "does not belong to this mesh any more" in agent.client.problem)


@running
async def test_without_a_usable_certificate_the_server_is_not_asked(mesh: Mesh) -> None:
    async with mesh.serving():
        agent = Agent(mesh, await mesh.credentials("a"))
        agent.file.save(Credentials(b"", b"", b""))
        async with agent.running():
            await eventually(lambda: "damaged" in agent.client.problem)


@running
async def test_a_new_certificate_ends_no_stream(mesh: Mesh) -> None:
    async with mesh.serving(), Agent(mesh, await mesh.credentials("a")).running() as agent:
        await eventually(lambda: agent.client.connected)
        since = agent.client.since
        agent.file.save(await mesh.credentials("b"))
        mesh.plane.publish(things(x="one"))
        await eventually(lambda: held(agent) == {"x": "one"})
        assert agent.client.since == since


@running
async def test_nothing_else_that_the_key_opens_is_to_be_had(mesh: Mesh) -> None:
    async with mesh.serving(), Agent(mesh, await mesh.credentials("a")).running() as agent:
        async with grpc.aio.insecure_channel(f"unix:{agent.socket}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(METHOD)(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
