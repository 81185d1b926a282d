"""Health checks come from the ports of meshd's own probes, whose share of connections is apart."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from meshd.api.service_entry.types import (
    GRPCHealthCheck,
    HTTPHealthCheck,
    ReadinessProbe,
    TCPHealthCheck,
)
from meshd.model.interception import INBOUND_PROBE_PORTS
from meshd.model.workload import HostService, Workload
from meshd.workloads import probe_connections
from meshd.workloads.health import passes
from meshd.workloads.probe_connections import connect, relayed
from tests.waiting import PATIENCE

SERVING = b"\x08\x01"


HERE = Workload(
    uid="shop.web", name="web", namespace="shop", netns="", host=HostService(cgroup="web.slice")
)


async def no_program(_workload: Workload, _command: tuple[str, ...], _seconds: float) -> bool:
    raise AssertionError


async def seen_by_server(ask: Callable[[int], Awaitable[bool]], address: str) -> int:
    """Return the port from which a server was asked."""
    asked: asyncio.Queue[int] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(writer.get_extra_info("peername")[1])
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, address, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await ask(port)
        return await asyncio.wait_for(asked.get(), 5)


def test_http_and_tcp_are_asked_from_a_probes_port() -> None:
    def by_http(port: int) -> Awaitable[bool]:
        return passes(ReadinessProbe(http_get=HTTPHealthCheck(port=port)), HERE, no_program)

    def by_tcp(port: int) -> Awaitable[bool]:
        return passes(ReadinessProbe(tcp_socket=TCPHealthCheck(port=port)), HERE, no_program)

    for ask in (by_http, by_tcp):
        assert asyncio.run(seen_by_server(ask, "127.0.0.1")) in INBOUND_PROBE_PORTS


def test_an_address_of_ipv6_is_asked_from_a_probes_port_too() -> None:
    async def by_ipv6(port: int) -> bool:
        _, writer = await connect("::1", port)
        writer.close()
        return True

    assert asyncio.run(seen_by_server(by_ipv6, "::1")) in INBOUND_PROBE_PORTS


def test_grpc_is_asked_from_a_probes_port() -> None:
    peers = asyncio.run(seen_by_grpc())
    assert int(peers[0].rpartition(":")[2]) in INBOUND_PROBE_PORTS


def test_grpc_is_asked_without_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert len(asyncio.run(seen_by_grpc())) == 1


async def seen_by_grpc() -> list[str]:
    """Return whom a server of gRPC was asked by."""
    peers: list[str] = []

    async def check(_: bytes, context: Any) -> bytes:
        peers.append(context.peer())
        return SERVING

    handler = grpc.unary_unary_rpc_method_handler(check)
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    probe = ReadinessProbe(grpc=GRPCHealthCheck(port=port))
    assert await passes(probe, HERE, no_program)
    await server.stop(None)
    return peers


def test_nothing_goes_on_to_ask_a_workload_whose_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(*_: object) -> probe_connections.Streams:
        begun.set()
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            ended.set()

    async def ask() -> None:
        async with asyncio.timeout(PATIENCE), relayed("127.0.0.1", 9) as target:
            name = target.removeprefix("unix-abstract:")
            _, writer = await asyncio.open_unix_connection(f"\0{name}")
            await begun.wait()
            writer.close()
        assert ended.is_set()

    monkeypatch.setattr(probe_connections, "connect", never)
    asyncio.run(ask())


def test_a_port_is_used_for_several_workloads_and_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe_connections, "INBOUND_PROBE_PORTS", INBOUND_PROBE_PORTS[:16])
    asyncio.run(use_all_twice())


async def use_all_twice() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        opened = [
            await connect("127.0.0.1", server.getsockname()[1])
            for server in (one, other)
            for _ in range(16)
        ]
        sources = [writer.get_extra_info("sockname")[1] for _, writer in opened]
        assert sorted(sources) == sorted([*INBOUND_PROBE_PORTS[:16]] * 2)
        # All are in use, so another connection counts like any.
        _, last = await connect("127.0.0.1", one.getsockname()[1])
        assert last.get_extra_info("sockname")[1] not in INBOUND_PROBE_PORTS
        for _, writer in (*opened, (None, last)):
            writer.close()
            await writer.wait_closed()
