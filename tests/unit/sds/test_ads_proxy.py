"""The proxies' one stream, with a real mesh role's server behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.pool import Pool
from meshd.sds import server as sds
from meshd.sds.ads_proxy import AdsProxy, parts
from meshd.sds.subscriber import Secrets
from meshd.xds import server as xds
from meshd.xds.resources import CLUSTER, Resources, pack
from tests.ads import delta_stream

_DEADLINE = 60.0
_ALICE = "spiffe://cluster.local/ns/mesh/sa/alice"
_GATEWAY = "kubernetes://mesh/shop"
_NAMES = st.sampled_from([_ALICE, "ROOTCA", "unidentified", _GATEWAY, f"{_GATEWAY}-cacert"])


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * _DEADLINE):
            await scenario()

    asyncio.run(bounded())


def _secrets(version: str) -> Secrets:
    secret = sds.certificate_secret(_ALICE, version, b"chain", b"key")
    return Secrets({_ALICE: secret}, frozenset())


def _configuration(seconds: int) -> dict[Pool, Resources]:
    cluster = cluster_pb2.Cluster(name="a", connect_timeout={"seconds": seconds})
    return {Pool.TRAFFIC: Resources.of([pack("a", cluster)])}


@asynccontextmanager
async def _identity(directory: Path) -> AsyncGenerator[sds.Server]:
    server = sds.Server()
    ads = AdsProxy(server, directory / "plane.sock")
    await server.start(directory / "xds.sock", ads.handler)
    server.publish(_secrets("1"))
    try:
        yield server
    finally:
        await server.stop()
        await ads.close()


@asynccontextmanager
async def _mesh(directory: Path, seconds: int = 1) -> AsyncGenerator[xds.Server]:
    server = xds.Server()
    await server.start(directory / "plane.sock")
    server.publish(_configuration(seconds))
    try:
        yield server
    finally:
        await server.stop()


class _Proxy:
    """Says who it is in its first message only, as Envoy does."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._node: Any = {"id": "node~proxy-0", "cluster": "proxy"}

    async def ask(self, type_url: str, **fields: Any) -> None:
        node, self._node = self._node, None
        await self._call.write(
            discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=type_url, **fields)
        )

    async def get(self) -> Any:
        async with asyncio.timeout(_DEADLINE):
            return await self._call.read()

    async def accept(self, **fields: Any) -> Any:
        response = await self.get()
        await self.ask(response.type_url, response_nonce=response.nonce, **fields)
        return response


@asynccontextmanager
async def _proxy(directory: Path) -> AsyncGenerator[_Proxy]:
    async with grpc.aio.insecure_channel(f"unix:{directory / 'xds.sock'}") as channel:
        call = delta_stream(channel)
        try:
            yield _Proxy(call)
        finally:
            call.cancel()


def _versions(response: Any) -> dict[str, str]:
    return {resource.name: resource.version for resource in response.resources}


def test_secrets_and_configuration_come_on_one_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _identity(tmp_path) as ours, _mesh(tmp_path) as theirs, _proxy(tmp_path) as one:
            await one.ask(CLUSTER)
            assert _versions(await one.accept()).keys() == {"a"}
            await one.ask(sds.TYPE, resource_names_subscribe=[_ALICE, "unidentified"])
            first = await one.accept()
            assert _versions(first) == {_ALICE: "1"}
            assert list(first.removed_resources) == ["unidentified"]
            ours.publish(_secrets("2"))
            assert _versions(await one.accept()) == {_ALICE: "2"}
            (member,) = theirs.members()
            assert (member.name, member.pool) == ("node~proxy-0", Pool.TRAFFIC)
            theirs.publish(_configuration(2))
            changed = await one.accept()
            assert (changed.type_url, len(changed.resources)) == (CLUSTER, 1)
            assert await theirs.wait(
                lambda: theirs.accepted_names(CLUSTER) == {"a"}, timeout=_DEADLINE
            )

    _run(scenario)


def test_what_a_proxy_refuses_is_told_to_whoever_sent_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with _identity(tmp_path), _mesh(tmp_path) as theirs, _proxy(tmp_path) as one:
            await one.ask(CLUSTER)
            await one.accept(error_detail={"message": "bad cluster"})
            assert await theirs.wait(lambda: bool(theirs.rejections()), timeout=_DEADLINE)
            assert [one.reason for one in theirs.rejections().values()] == ["bad cluster"]
            await one.ask(sds.TYPE, resource_names_subscribe=[_ALICE])
            await one.accept(error_detail={"message": "bad secret"})
            # What is asked after it is answered after it was heard.
            await one.ask(sds.TYPE, resource_names_subscribe=["unidentified"])
            await one.get()
            assert any("bad secret" in record.message for record in caplog.records)

    _run(scenario)


def test_secrets_are_served_while_the_mesh_role_is_away(tmp_path: Path) -> None:
    """And what was asked of it is asked when it is there."""

    async def scenario() -> None:
        async with _identity(tmp_path), _proxy(tmp_path) as one:
            await one.ask(CLUSTER)
            await one.ask(sds.TYPE, resource_names_subscribe=[_ALICE])
            assert _versions(await one.accept()) == {_ALICE: "1"}
            async with _mesh(tmp_path):
                assert _versions(await one.accept()).keys() == {"a"}

    _run(scenario)


def test_a_mesh_role_that_went_before_it_answered_is_asked_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _identity(tmp_path), _proxy(tmp_path) as one:
            silent = xds.Server()
            await silent.start(tmp_path / "plane.sock")
            await one.ask(CLUSTER)
            assert await silent.wait(lambda: silent.connected == 1, timeout=_DEADLINE)
            await silent.stop()
            async with _mesh(tmp_path):
                assert _versions(await one.accept()).keys() == {"a"}

    _run(scenario)


def test_the_stream_ends_with_a_mesh_role_that_has_answered(tmp_path: Path) -> None:
    """So that the proxy tells the next one what it has."""

    async def scenario() -> None:
        async with _identity(tmp_path), _proxy(tmp_path) as one:
            async with _mesh(tmp_path):
                await one.ask(CLUSTER)
                await one.accept()
            assert await one.get() is grpc.aio.EOF

    _run(scenario)


@given(st.lists(_NAMES), st.lists(_NAMES), st.dictionaries(_NAMES, st.just("1")))
def test_each_name_goes_to_whoever_knows_it(
    subscribed: list[str], left: list[str], held: dict[str, str]
) -> None:
    request = discovery_pb2.DeltaDiscoveryRequest(
        type_url=sds.TYPE,
        resource_names_subscribe=subscribed,
        resource_names_unsubscribe=left,
        initial_resource_versions=held,
    )
    for part, gateways in zip(
        parts(request, base_pb2.Node(id="proxy-0")), (False, True), strict=True
    ):
        told = part or discovery_pb2.DeltaDiscoveryRequest()

        def of(names: list[str], gateways: bool = gateways) -> list[str]:
            return [name for name in names if name.startswith("kubernetes://") is gateways]

        assert list(told.resource_names_subscribe) == of(subscribed)
        assert list(told.resource_names_unsubscribe) == of(left)
        assert told.initial_resource_versions.keys() == set(of(list(held)))
        assert bool(part) == bool(of(subscribed) or of(left) or of(list(held)))
