"""The capture role as a process of its own, ended with kill -9 at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.base.errors import UnreachableError
from meshd.capture.pods.namespaces import Pins
from meshd.model.interception import OUTBOUND_PORT
from meshd.model.workload import Placement, Stage, Workload
from meshd.settings import Paths
from meshd.wire import channel
from tests.waiting import PATIENCE

UID = "default.reviews"
ROLE = """
import asyncio
from meshd.roles import capture
from meshd.settings import Paths, Settings
asyncio.run(capture.run(Settings(user={user!r}), Paths.from_environment()))
"""


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    made = Paths.from_environment({"MESHD_HOME": str(tmp_path)})
    made.run.mkdir()
    yield made
    pins = Pins(made.netns)
    for uid in pins.list_pins():
        pins.unpin(uid)


@contextlib.asynccontextmanager
async def role(paths: Paths) -> AsyncGenerator[channel.Connection[wire.AnyMessage]]:
    """A new process, and a connection to it. It is killed, not stopped."""
    # A child that the last one forked just before its end may still hold the old socket.
    paths.socket("capture").unlink(missing_ok=True)
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time that anybody waits for
        [sys.executable, "-c", ROLE.format(user=getpass.getuser())],
        env={"MESHD_HOME": str(paths.run.parent), "PATH": "/usr/sbin:/usr/bin"},
        cwd=Path(__file__).parents[2],
    )
    try:
        async with await _connected(paths) as connection:
            yield connection
    finally:
        process.kill()
        process.wait()


async def _connected(paths: Paths) -> channel.Connection[wire.AnyMessage]:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(UnreachableError):
                return await channel.connect(paths.socket("capture"))
            await asyncio.sleep(0.02)


def wanted(host: Any) -> wire.Place:
    workload = Workload(uid=UID, name="reviews", namespace="default", netns=str(host.netns))
    return wire.Place((Placement(workload, Stage.CAPTURED),))


async def proven(connection: channel.Connection[wire.AnyMessage]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            message = await connection.receive()
            assert isinstance(message, wire.Observed)
            if any(one.proven for one in message.observations):
                return


@contextlib.asynccontextmanager
async def proxy(host: Any) -> AsyncGenerator[None]:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"meshd {UID}\n".encode())
        writer.close()

    servers = [
        await asyncio.start_server(answer, sock=host.listen(address, OUTBOUND_PORT).socket)
        for address in ("0.0.0.0", "::")
    ]
    try:
        yield
    finally:
        for server in servers:
            server.close()


@pytest.mark.parametrize("milliseconds", [0, 4, 8, 12, 16, 20, 24])
def test_whatever_the_moment_it_is_killed_the_next_one_completes(
    network: Any, paths: Paths, milliseconds: int
) -> None:
    async def story() -> None:
        before = network.workload.save()
        async with proxy(network.workload):
            async with role(paths) as connection:
                await connection.send(wanted(network.workload))
                # Not a wait for something: the moments of the kill are what is varied.
                await asyncio.sleep(milliseconds / 1000)
            async with role(paths) as connection:
                await connection.send(wanted(network.workload))
                await proven(connection)
                await connection.send(wire.Place(()))
                async with asyncio.timeout(PATIENCE):
                    while (message := await connection.receive()) != wire.Observed(()):
                        assert isinstance(message, wire.Observed)
        assert network.workload.save() == before
        assert list(paths.netns.iterdir()) == []

    asyncio.run(story())


def test_captured_traffic_stays_captured_while_no_role_runs(network: Any, paths: Paths) -> None:
    async def story() -> None:
        async with proxy(network.workload):
            async with role(paths) as connection:
                await connection.send(wanted(network.workload))
                await proven(connection)
            with network.workload.connect("198.19.71.9", 80) as client:
                client.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(client, 64) == (
                    f"meshd {UID}\n".encode()
                )

    asyncio.run(story())


def test_the_capture_role_does_not_import_grpc() -> None:
    """gRPC's core does not survive the fork by which the role enters namespaces."""
    code = "import sys; from meshd.roles import capture; print('grpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == "False\n"
