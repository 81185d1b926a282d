"""The server over a real unix socket, with a real gRPC client."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.model.pool import Pool
from meshd.xds.resources import CLUSTER, LISTENER, Resources, pack
from meshd.xds.server import Server
from tests.ads import delta_stream, whole_stream

_DEADLINE = 60.0


def _run(scenario: Callable[[Path], Awaitable[None]], path: Path) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * _DEADLINE):
            await scenario(path)

    asyncio.run(bounded())


def _clusters(**seconds: int) -> Resources:
    """Clusters that differ by their connect time-out."""
    return Resources.of(
        pack(name, cluster_pb2.Cluster(name=name, connect_timeout={"seconds": value}))
        for name, value in seconds.items()
    )


def _traffic(**seconds: int) -> dict[Pool, Resources]:
    return {Pool.TRAFFIC: _clusters(**seconds)}


@asynccontextmanager
async def _serving(
    path: Path, resources: Mapping[Pool, Resources] | None = None
) -> AsyncGenerator[Server]:
    server = Server()
    await server.start(path)
    if resources:
        server.publish(resources)
    try:
        yield server
    finally:
        await server.stop()


class _Client:
    """Speaks the protocol by hand. That there are no listeners it takes note of in silence."""

    def __init__(self, call: Any, name: str, cluster: str) -> None:
        self._call = call
        self._node = {"id": name, "cluster": cluster}
        self._responses: asyncio.Queue[Any] = asyncio.Queue()

    async def ask(self, type_url: str, **parts: Any) -> None:
        await self._call.write(
            discovery_pb2.DeltaDiscoveryRequest(node=self._node, type_url=type_url, **parts)
        )

    async def ask_for_all(self, **versions: str) -> None:
        await self.ask(CLUSTER, initial_resource_versions=versions)
        await self.ask(LISTENER)

    async def get(self) -> Any:
        async with asyncio.timeout(_DEADLINE):
            response = await self._responses.get()
        if isinstance(response, Exception):
            raise response
        return response

    async def read(self) -> None:
        try:
            async for response in self._call:
                if response.type_url == LISTENER and not response.resources:
                    await self.ask(LISTENER, response_nonce=response.nonce)
                else:
                    self._responses.put_nowait(response)
        except grpc.aio.AioRpcError as error:
            self._responses.put_nowait(error)

    async def accept(self) -> Any:
        response = await self.get()
        await self.ask(response.type_url, response_nonce=response.nonce)
        return response

    async def refuse(self, reason: str) -> Any:
        response = await self.get()
        await self.ask(
            response.type_url, response_nonce=response.nonce, error_detail={"message": reason}
        )
        return response


@asynccontextmanager
async def _connected(
    path: Path, name: str = "proxy-0", cluster: str = Pool.TRAFFIC
) -> AsyncGenerator[_Client]:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call = delta_stream(channel)
        client = _Client(call, name, cluster)
        reading = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            call.cancel()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _is_synced(server: Server) -> bool:
    """The one pool that is there has all that is for it."""

    def so() -> bool:
        return server.connected > 0 and all(one.synced for one in server.members())

    return await server.wait(so, _DEADLINE)


def _names(response: Any) -> list[str]:
    return [resource.name for resource in response.resources]


def test_a_client_gets_what_is_published_and_then_only_what_changed(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with _serving(path, _traffic(a=1, b=1)) as server, _connected(path) as client:
            await client.ask_for_all()
            first = await client.accept()
            assert _names(first) == ["a", "b"]
            body = cluster_pb2.Cluster.FromString(first.resources[0].resource.value)
            assert (body.name, body.connect_timeout.seconds) == ("a", 1)
            assert await _is_synced(server)

            server.publish(_traffic(a=2, c=1))
            assert _names(await client.accept()) == ["a", "c"]
            assert list((await client.accept()).removed_resources) == ["b"]
            assert await _is_synced(server)
            assert server.accepted_names(CLUSTER) == {"a", "c"}

    _run(scenario, tmp_path / "xds.sock")


def test_nothing_is_said_before_the_first_publication(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with _serving(path) as server, _connected(path) as client:
            await client.ask_for_all(old="0")
            assert await server.wait(lambda: server.connected == 1, _DEADLINE)
            server.publish(_traffic(a=1))
            assert _names(await client.accept()) == ["a"]
            assert list((await client.accept()).removed_resources) == ["old"]

    _run(scenario, tmp_path / "xds.sock")


def test_a_client_of_a_restarted_server_is_sent_nothing_that_it_has(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        resources = _traffic(a=1)
        versions = {"a": resources[Pool.TRAFFIC].version(CLUSTER, "a") or ""}
        for _ in range(2):
            async with _serving(path, resources) as server, _connected(path) as client:
                await client.ask_for_all(**versions)
                assert await _is_synced(server)
                server.publish(_traffic(a=1, b=1))
                assert _names(await client.accept()) == ["b"]

    _run(scenario, tmp_path / "xds.sock")


def test_a_client_that_does_not_answer_holds_up_nobody_else(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with (
            _serving(path, _traffic(a=1)) as server,
            _connected(path, "slow") as slow,
            _connected(path, "quick") as quick,
        ):
            await slow.ask_for_all()
            await quick.ask_for_all()
            await quick.accept()
            for round_ in range(2, 50):
                server.publish(_traffic(a=round_))
                assert _names(await quick.accept()) == ["a"]
            assert await server.wait(lambda: server.members()[0].synced, _DEADLINE)
            assert [(m.name, m.synced) for m in server.members()] == [
                ("quick", True),
                ("slow", False),
            ]
            assert not server.accepted_names(CLUSTER)

            await slow.accept()
            newest = (await slow.accept()).resources[0]
            assert newest.version == _clusters(a=49).version(CLUSTER, "a")
            assert await server.wait(lambda: server.accepted_names(CLUSTER) == {"a"}, _DEADLINE)

    _run(scenario, tmp_path / "xds.sock")


def test_what_a_client_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with _serving(path, _traffic(a=1, b=1)) as server, _connected(path) as client:
            await client.ask_for_all()
            await client.refuse("one of them is bad")
            assert _names(await client.refuse("a is bad")) == ["a"]
            assert _names(await client.accept()) == ["b"]
            assert await server.wait(lambda: server.accepted_names(CLUSTER) == {"b"}, _DEADLINE)
            assert not server.members()[0].synced
            assert server.members()[0].rejected == ("a: a is bad",)
            assert server.rejections()[CLUSTER, "a"].reason == "a is bad"
            assert server.accepted_names(CLUSTER) == {"b"}

    _run(scenario, tmp_path / "xds.sock")


def test_a_client_that_hung_up_does_not_count(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with _serving(path, _traffic(a=1)) as server:
            async with _connected(path) as client:
                await client.ask_for_all()
                await client.accept()
                assert await _is_synced(server)
            assert await server.wait(lambda: server.connected == 0, _DEADLINE)
            assert not server.settled
            assert server.missing == tuple(Pool)
            assert not server.accepted_names(CLUSTER)
            assert server.present_names(CLUSTER) == {"a"}

    _run(scenario, tmp_path / "xds.sock")


def test_each_pool_is_told_its_own(tmp_path: Path) -> None:
    """And has to have accepted it before it counts; the other pool has no say in that."""

    async def scenario(path: Path) -> None:
        own = {Pool.TRAFFIC: _clusters(a=1), Pool.DNS: _clusters(d=1)}
        async with _serving(path, own) as server, _connected(path, "t", Pool.TRAFFIC) as traffic:
            await traffic.ask_for_all()
            assert _names(await traffic.accept()) == ["a"]
            assert await server.wait(lambda: server.accepted_names(CLUSTER) == {"a"}, _DEADLINE)
            assert server.missing == (Pool.DNS,)
            assert not server.settled
            async with _connected(path, "d", Pool.DNS) as dns:
                await dns.ask_for_all()
                response = await dns.get()
                assert _names(response) == ["d"]
                assert server.accepted_names(CLUSTER) == {"a"}
                await dns.ask(CLUSTER, response_nonce=response.nonce)
                assert await server.wait_settled(_DEADLINE)
                assert server.accepted_names(CLUSTER) == {"a", "d"}
            assert server.published_names(CLUSTER) == {"a", "d"}

            server.publish(own | {Pool.DNS: _clusters(d=2)})
            server.publish(own | {Pool.TRAFFIC: _clusters(a=2)})
            assert _names(await traffic.accept()) == ["a"]

    _run(scenario, tmp_path / "xds.sock")


def test_a_proxy_that_names_no_pool_is_refused(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with (
            _serving(path, _traffic(a=1)) as server,
            _connected(path, cluster="another") as stranger,
        ):
            await stranger.ask(CLUSTER)
            with pytest.raises(grpc.aio.AioRpcError, match='"another" is none of') as caught:
                await stranger.get()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert server.connected == 0

    _run(scenario, tmp_path / "xds.sock")


def test_the_state_of_the_world_protocol_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with _serving(path), grpc.aio.insecure_channel(f"unix:{path}") as channel:
            call = whole_stream(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="DELTA_GRPC") as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    _run(scenario, tmp_path / "xds.sock")


def test_the_socket_is_for_its_owner_and_the_directorys_group(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        async with _serving(path):
            found = path.stat()
            assert stat.S_IMODE(found.st_mode) == 0o660
            assert found.st_gid == path.parent.stat().st_gid

    _run(scenario, tmp_path / "xds.sock")


def test_a_path_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    async def too_long(path: Path) -> None:
        with pytest.raises(InvalidInputError, match="shorter home"):
            await Server().start(path / ("x" * 120))

    async def no_directory(path: Path) -> None:
        with pytest.raises(SystemRefusedError, match=r"nowhere/xds\.sock"):
            await Server().start(path / "nowhere" / "xds.sock")

    _run(too_long, tmp_path)
    _run(no_directory, tmp_path)
