"""The SDS server as a real gRPC client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.sds.server import Server, certificate_secret, trust_secret
from meshd.sds.subscriber import Secret, Secrets
from tests.ads import delta_stream, whole_stream

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_SDS = "/envoy.service.secret.v3.SecretDiscoveryService"
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
_DEADLINE = 60.0


def _certificate(name: str, version: str) -> Secret:
    return certificate_secret(name, version, b"chain " + version.encode(), b"key")


def _secrets(*names: str, version: str = "1") -> Secrets:
    return Secrets({name: _certificate(name, version) for name in names}, frozenset(names))


class _Stream:
    def __init__(self, path: Path, method: str) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{path}")
        if "Delta" in method:
            self._request: Any = discovery_pb2.DeltaDiscoveryRequest
            self._call = delta_stream(self._channel, method)
        else:
            self._request = discovery_pb2.DiscoveryRequest
            self._call = whole_stream(self._channel, method)

    async def send(self, **fields: Any) -> None:
        await self._call.write(self._request(type_url=_TYPE, node={"id": "proxy-0"}, **fields))

    async def receive(self) -> Any:
        async with asyncio.timeout(_DEADLINE):
            return await self._call.read()

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()


@contextlib.asynccontextmanager
async def _serving(directory: Path) -> AsyncGenerator[Server]:
    server = Server()
    await server.start(directory / "sds.sock")
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def _stream(directory: Path, method: str = f"{_SDS}/DeltaSecrets") -> AsyncGenerator[_Stream]:
    stream = _Stream(directory / "sds.sock", method)
    try:
        yield stream
    finally:
        await stream.close()


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def _unpack(resource: Any) -> Any:
    found = secret_pb2.Secret()
    assert resource.Unpack(found)
    return found


@pytest.mark.parametrize("method", [f"{_SDS}/DeltaSecrets", f"{_ADS}/DeltaAggregatedResources"])
def test_a_client_gets_what_it_asks_for_and_each_renewal(tmp_path: Path, method: str) -> None:
    async def scenario() -> None:
        async with _serving(tmp_path) as server, _stream(tmp_path, method) as stream:
            server.publish(_secrets("a"))
            await stream.send(resource_names_subscribe=["a", "b"])
            first = await stream.receive()
            assert first.type_url == _TYPE
            assert list(first.removed_resources) == ["b"]
            (resource,) = first.resources
            assert (resource.name, resource.version) == ("a", "1")
            shown = _unpack(resource.resource)
            assert shown.name == "a"
            assert shown.tls_certificate.certificate_chain.inline_bytes == b"chain 1"
            assert shown.tls_certificate.private_key.inline_bytes == b"key"
            await stream.send(response_nonce=first.nonce)
            server.publish(_secrets("a", "b", version="2"))
            second = await stream.receive()
            assert {r.name: r.version for r in second.resources} == {"a": "2", "b": "2"}

    _run(scenario)


def test_secrets_are_served_over_state_of_the_world_sds(tmp_path: Path) -> None:
    async def scenario() -> None:
        method = f"{_SDS}/StreamSecrets"
        async with _serving(tmp_path) as server, _stream(tmp_path, method) as stream:
            await stream.send(resource_names=["ROOTCA"])
            server.publish(Secrets({"ROOTCA": trust_secret("ROOTCA", "1", b"roots")}))
            first = await stream.receive()
            trust = _unpack(first.resources[0])
            assert trust.validation_context.trusted_ca.inline_bytes == b"roots"
            await stream.send(
                resource_names=["ROOTCA"],
                response_nonce=first.nonce,
                version_info=first.version_info,
            )
            server.publish(Secrets({"ROOTCA": trust_secret("ROOTCA", "2", b"more")}))
            assert len((await stream.receive()).resources) == 1

    _run(scenario)


def test_what_is_published_beside_stays_when_all_else_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _serving(tmp_path) as server, _stream(tmp_path) as stream:
            server.publish_beside("own", _secrets("own").served["own"])
            await stream.send(resource_names_subscribe=["a", "own"])
            first = await stream.receive()
            assert [one.name for one in first.resources] == ["own"]
            await stream.send(response_nonce=first.nonce)
            server.publish(_secrets("a"))
            server.publish_files({})
            second = await stream.receive()
            assert ([one.name for one in second.resources], second.removed_resources) == (["a"], [])

    _run(scenario)


def test_before_anything_is_published_a_client_is_told_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _serving(tmp_path) as server, _stream(tmp_path) as stream:
            await stream.send(resource_names_subscribe=["a"], initial_resource_versions={"a": "0"})
            # A second stream of the same client is answered: the first was not.
            server.publish(Secrets({"ROOTCA": trust_secret("ROOTCA", "1", b"roots")}))
            async with _stream(tmp_path) as other:
                await other.send(resource_names_subscribe=["ROOTCA"])
                assert (await other.receive()).resources[0].name == "ROOTCA"
            server.publish(_secrets("a"))
            answer = await stream.receive()
            assert [r.name for r in answer.resources] == ["a"]
            assert list(answer.removed_resources) == []

    _run(scenario)


def test_a_refusal_is_logged_once_whatever_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with _serving(tmp_path) as server:
            server.publish(_secrets("a"))
            for _ in range(3):
                async with _stream(tmp_path) as stream:
                    await stream.send(resource_names_subscribe=["a"])
                    answer = await stream.receive()
                    error = {"code": 13, "message": "bad\nkey " + "x" * 2000}
                    await stream.send(response_nonce=answer.nonce, error_detail=error)
                    # The next answer shows that the refusal was read.
                    await stream.send(resource_names_subscribe=["nobody"])
                    assert list((await stream.receive()).removed_resources) == ["nobody"]

    with caplog.at_level(logging.WARNING):
        _run(scenario)
    (record,) = [r for r in caplog.records if r.name == "meshd.sds.server"]
    text = record.getMessage()
    assert text.startswith("proxy proxy-0 refused the secret a: bad key xxx")
    assert len(text) < 600


def test_clients_that_hang_up_at_any_moment_leave_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with _serving(tmp_path) as server:
            for version in range(20):
                async with _stream(tmp_path) as stream:
                    await stream.send(resource_names_subscribe=["a"])
                    server.publish(_secrets("a", version=str(version)))
                server.publish(_secrets("a", version=f"{version}b"))
            async with _stream(tmp_path) as stream:
                await stream.send(resource_names_subscribe=["a"])
                assert len((await stream.receive()).resources) == 1
            async with asyncio.timeout(_DEADLINE):
                while server.clients:  # noqa: ASYNC110 - gRPC tells nobody
                    await asyncio.sleep(0.01)

    with caplog.at_level(logging.DEBUG):
        _run(scenario)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_the_socket_is_for_owner_and_group_of_its_directory(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _serving(tmp_path):
            pass
        async with _serving(tmp_path):  # over the file that the first has left
            found = (tmp_path / "sds.sock").stat()
            assert stat.S_IMODE(found.st_mode) == 0o660
            assert found.st_gid == tmp_path.stat().st_gid

    _run(scenario)


def test_a_place_where_it_cannot_listen_is_one_line(tmp_path: Path) -> None:
    async def start(path: Path) -> None:
        await Server().start(path)

    with pytest.raises(SystemRefusedError, match="not a directory that uid"):
        asyncio.run(start(tmp_path / "missing" / "sds.sock"))
    with pytest.raises(InvalidInputError, match="too long"):
        asyncio.run(start(tmp_path / ("x" * 200)))
