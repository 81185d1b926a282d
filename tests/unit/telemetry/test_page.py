"""The telemetry role as a whole, on a free port, beside roles that answer or do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from meshd import wire
from meshd.base.errors import SystemRefusedError
from meshd.model.pool import Pool
from meshd.roles import telemetry
from meshd.settings import Paths, Settings, TelemetrySettings
from meshd.wire import channel

STATUSES = wire.Statuses(
    (), tuple(wire.ProxyStatus(f"{pool}-0", True, True, pool=pool) for pool in Pool)
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths.from_environment({"MESHD_HOME": str(tmp_path)})
    found.admin_run.mkdir(parents=True)
    return found


def children() -> wire.ChildStates:
    state = wire.RoleStatus("telemetry", os.getpid(), "running", 0, time.time())
    return wire.ChildStates((state,))


@contextlib.asynccontextmanager
async def node(paths: Paths) -> AsyncGenerator[None]:
    """The other roles."""

    async def mesh(_: wire.AnyMessage) -> wire.Message:
        return STATUSES

    async def supervisor(_: wire.AnyMessage) -> wire.Message:
        return children()

    servers = [
        await channel.listen(
            paths.socket(name), wire.ANY, channel.answering(answer), uids={os.geteuid()}
        )
        for name, answer in (("mesh", mesh), ("supervisor", supervisor))
    ]
    yield
    for server in servers:
        server.close()


def serving(paths: Paths, look: Callable[[str], Awaitable[None]], *, alone: bool = False) -> None:
    """Run the role while ``look`` looks at it."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            if not alone:
                await stack.enter_async_context(node(paths))
            settings = Settings(telemetry=TelemetrySettings(port=0))
            role = asyncio.create_task(telemetry.run(settings, paths))
            try:
                await look(f"http://127.0.0.1:{await port(paths)}")
            finally:
                role.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await role

    asyncio.run(run())


async def port(paths: Paths) -> int:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                return int(paths.telemetry_port.read_text())
            await asyncio.sleep(0.01)


async def get(url: str) -> tuple[int, str, str]:
    """Status, content type, body."""

    def ask() -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read().decode()

    return await asyncio.to_thread(ask)


def test_metrics_are_served(paths: Paths) -> None:
    async def look(base: str) -> None:
        status, kind, body = await get(f"{base}/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'meshd_proxy_connected{proxy="proxy-0"} 1.0' in body
        resident = re.search(r'memory_bytes\{process="telemetry"\} (\S+)', body)
        assert resident
        assert float(resident[1]) > 1_000_000

    serving(paths, look)


def test_the_page_asks_nobody_else(paths: Paths) -> None:
    async def look(base: str) -> None:
        status, kind, body = await get(f"{base}/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert "api/state" in body
        assert not re.search(r"(https?:)?//[a-z]", body)

    serving(paths, look)


def test_the_page_is_given_problems_processes_and_their_costs(paths: Paths) -> None:
    async def look(base: str) -> None:
        status, _, body = await get(f"{base}/api/state")
        state = json.loads(body)
        assert (status, state["ready"], state["problems"]) == (200, True, [])
        (process,) = state["processes"]
        assert (process["name"], process["pid"]) == ("telemetry", os.getpid())
        assert process["resident"] > 1_000_000

    serving(paths, look)


def test_a_node_is_ready_when_a_proxy_has_the_configuration(paths: Paths) -> None:
    async def look(base: str) -> None:
        assert (await get(f"{base}/healthz/ready"))[0] == 200

    serving(paths, look)


def test_alone_it_says_what_does_not_answer(paths: Paths) -> None:
    async def look(base: str) -> None:
        status, _, body = await get(f"{base}/healthz/ready")
        assert status == 503
        assert "mesh.sock" in body
        assert (await get(f"{base}/metrics"))[0] == 200
        assert json.loads((await get(f"{base}/api/state"))[2])["workloads"] == []

    serving(paths, look, alone=True)


def test_a_port_that_is_taken_is_one_clear_line(paths: Paths) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        number = taken.getsockname()[1]
        settings = Settings(telemetry=TelemetrySettings(port=number))
        with pytest.raises(SystemRefusedError) as caught:
            asyncio.run(telemetry.run(settings, paths))
    assert f"127.0.0.1:{number}: Address already in use" in str(caught.value)
    assert "telemetry.port" in str(caught.value)
    assert "\n" not in str(caught.value)
