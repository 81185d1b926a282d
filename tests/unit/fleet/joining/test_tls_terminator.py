"""The server's port: how long strangers are waited for, and whom they can keep out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshd.fleet.agent.remote import open_channel
from meshd.fleet.joining import tls_terminator
from meshd.fleet.joining.join import ALPN, AskRoots, Roots, decode, encode
from meshd.fleet.joining.node import SERVER_NAME, Credentials
from meshd.fleet.joining.tls_terminator import source_of
from meshd.fleet.server.plane import NODES
from meshd.model.workload import Identity
from tests.unit.fleet.server.test_plane import (
    PATIENCE,
    TD,
    URL,
    Mesh,
    eventually,
    node,
    running,
    things,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers have more time than any test waits."""
    monkeypatch.setattr(tls_terminator, "_HANDSHAKE_TIMEOUT", 2 * PATIENCE)
    monkeypatch.setattr(tls_terminator, "_REQUEST_TIMEOUT", 2 * PATIENCE)


@pytest.fixture
def short_handshakes(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_terminator, "_HANDSHAKE_TIMEOUT", 0.3)


@pytest.fixture
def short_requests(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers have little time after the handshake."""
    monkeypatch.setattr(tls_terminator, "_REQUEST_TIMEOUT", 0.3)


def context_of(credentials: Credentials | None, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    if credentials:
        with tempfile.NamedTemporaryFile() as file:
            file.write(credentials.key + credentials.chain)
            file.flush()
            context.load_cert_chain(file.name)
    return context


@contextlib.asynccontextmanager
async def connected(
    mesh: Mesh, *protocols: str, credentials: Credentials | None = None
) -> AsyncGenerator[Streams]:
    context = context_of(credentials, *protocols)
    streams = await asyncio.open_connection(
        "127.0.0.1", mesh.port, ssl=context, server_hostname=SERVER_NAME
    )
    try:
        yield streams
    finally:
        streams[1].transport.abort()


async def is_hung_up_on(streams: Streams) -> bool:
    """Return True, or raise TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await streams[0].read(4096):
                pass
    return True


async def is_answered(mesh: Mesh) -> bool:
    async with connected(mesh, ALPN) as (reader, writer):
        writer.write(encode(AskRoots()))
        return isinstance(decode(await reader.readline()), Roots)


@pytest.mark.usefixtures("short_handshakes")
@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05\x01\x00\x10\x00\x03"]
)
def test_a_handshake_that_does_not_go_on_is_hung_up_on(mesh: Mesh, sent: bytes) -> None:
    @running
    async def check() -> None:
        async with mesh.serving():
            reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
            writer.write(sent)
            assert await is_hung_up_on((reader, writer))
            writer.transport.abort()

    check()


@pytest.mark.usefixtures("short_requests")
@pytest.mark.parametrize("sent", [b"", b'{"type":'])
def test_a_join_that_does_not_go_on_is_hung_up_on(mesh: Mesh, sent: bytes) -> None:
    @running
    async def check() -> None:
        async with mesh.serving(), connected(mesh, ALPN) as streams:
            streams[1].write(sent)
            assert await is_hung_up_on(streams)

    check()


@pytest.mark.usefixtures("short_requests")
@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + b"\0\0\x40\1"])
def test_a_certificate_without_a_request_does_not_last(mesh: Mesh, sent: bytes) -> None:
    @running
    async def check() -> None:
        async with mesh.serving():
            credentials = await mesh.credentials("a")
            async with connected(mesh, "h2", credentials=credentials) as streams:
                streams[1].write(sent)
                assert await is_hung_up_on(streams)

    check()


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_without_a_certificate_or_a_protocol_there_is_nothing(mesh: Mesh, protocol: str) -> None:
    @running
    async def check() -> None:
        async with mesh.serving():
            credentials = await mesh.credentials("a") if protocol != "h2" else None
            async with connected(mesh, protocol, credentials=credentials) as streams:
                assert await is_hung_up_on(streams)

    check()


@pytest.mark.usefixtures("short_requests")
@running
async def test_a_certificate_that_is_not_admitted_does_not_keep_its_connection(mesh: Mesh) -> None:
    mesh.plane.publish(things())
    async with mesh.serving():
        credentials = await mesh.stolen(Identity(TD, "shop", "web"))
        assert mesh.terminator
        async with open_channel(mesh.server, credentials) as channel:
            said = ""
            while "not a node's" not in said:  # a busy server may hang up before it has said so
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await anext(aiter(channel.stream_stream(f"/{NODES}/Register")(iter(()))))
                said = str(raised.value.details())
            await eventually(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)


@pytest.mark.usefixtures("short_requests")
@running
async def test_a_node_that_is_admitted_keeps_its_connection(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    async with mesh.serving(), node(mesh) as one, node(mesh, "b") as other:
        await eventually(lambda: one.inbox.values(URL) and other.inbox.values(URL))
        async with connected(mesh, ALPN) as streams:  # for as long as strangers may stay
            assert await is_hung_up_on(streams)
        mesh.plane.publish(things(a="two"))
        await eventually(lambda: dict(one.inbox.values(URL)) == {"a": "two"})
        assert (one.client.problem, other.client.problem) == ("", "")


@running
async def test_strangers_take_the_places_of_strangers_only(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_terminator, "_MOST_STRANGERS", 4)
    mesh.plane.publish(things(a="one"))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(mesh.serving())
        one = await stack.enter_async_context(node(mesh))
        await eventually(lambda: one.inbox.values(URL))
        silent = [await stack.enter_async_context(connected(mesh, ALPN)) for _ in range(12)]
        assert all([await is_hung_up_on(streams) for streams in silent[:8]])
        assert not any(streams[0].at_eof() for streams in silent[8:])
        assert await is_answered(mesh)
        other = await stack.enter_async_context(node(mesh, "b"))
        await eventually(lambda: other.inbox.values(URL))
        assert (one.client.connected, one.client.problem) == (True, "")


@running
async def test_strangers_that_come_at_once_lose_their_connections_with_their_places(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_terminator, "_MOST_STRANGERS", 4)
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(mesh.serving())
        # All of them before the server, which has the same thread, accepts the first.
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", mesh.port)))
            for _ in range(40)
        ]
        for one in silent:
            one.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            for one in silent[:36]:
                with contextlib.suppress(ConnectionError):
                    assert await loop.sock_recv(one, 1) == b""


@running
async def test_a_node_can_not_take_the_places_of_others(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_terminator, "_MOST_OF_ONE_NODE", 2)
    mesh.plane.publish(things(a="one"))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(mesh.serving())
        one = await stack.enter_async_context(node(mesh))
        await eventually(lambda: one.inbox.values(URL))
        credentials = await mesh.credentials("b")
        calls = []
        for _ in range(4):
            channel = await stack.enter_async_context(open_channel(mesh.server, credentials))
            call: Any = channel.stream_stream(f"/{NODES}/Register")()
            await call.write(b"[]")
            assert await call.read()
            calls.append(call)
        codes = [await call.code() for call in calls[:2]]
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 2
        assert not any(call.done() for call in calls[2:])
        assert (one.client.connected, one.client.problem) == (True, "")


@running
async def test_a_caller_that_bypasses_the_terminator_has_no_identity(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    async with mesh.serving():
        socket = mesh.directory / "nodes.sock"
        assert socket.stat().st_mode & 0o777 == 0o600
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="shown no certificate"):
                await anext(aiter(channel.stream_stream(f"/{NODES}/Register")(iter(()))))


@running
async def test_megabytes_of_configuration_pass_the_tls_terminator_whole(mesh: Mesh) -> None:
    values = {f"n{number}": f"{number}" * 200_000 for number in range(10, 30)}
    mesh.plane.publish(things(**values))
    async with mesh.serving(), node(mesh) as one:
        await eventually(lambda: len(one.inbox.values(URL)) == len(values))
        assert dict(one.inbox.values(URL)) == values


@running
async def test_a_client_cannot_negotiate_again(mesh: Mesh) -> None:
    async with mesh.serving():
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-tls1_2", "-alpn", ALPN, "-connect", mesh.server),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE):
            out, _ = await client.communicate(b"R\n")
        assert b"no renegotiation" in out
        assert await is_answered(mesh)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (("198.18.0.1", 5), "198.18.0.1"),
        (("::ffff:198.18.0.1", 5, 0, 0), "198.18.0.1"),
        (("fd00:198::1", 5, 0, 0), "fd00:198::/64"),
        (("fd00:198::2", 5, 0, 0), "fd00:198::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (None, ""),
    ],
)
def test_connections_are_counted_for_the_host_that_they_come_from(
    name: object, source: str
) -> None:
    assert source_of(name) == source
