"""The port that other nodes reach: strangers neither end the server nor keep nodes from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshd import wire
from meshd.base.errors import UnreachableError
from meshd.fleet.agent.remote import open_channel
from meshd.fleet.joining.address import split_address
from meshd.fleet.joining.joining import join_mesh
from meshd.fleet.joining.node import NodeFile
from meshd.fleet.server.istio_ca import METHOD
from meshd.fleet.server.plane import NODES
from tests.node.test_two_nodes import address, is_connected, new_token, start_agent, start_server

if TYPE_CHECKING:
    from tests.node.node import Node

STRANGERS = Path(__file__).with_name("strangers.py")
ABORTED = 4000
"""gRPC 1.85 ends about once in 300 of them."""
AT_ONCE = 300
"""As many as a server gets through in the time of one handshake, when it has a part of a core."""
JOINS = 5


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Node:
    return start_server(make, grace="600s")


@pytest.fixture(scope="module")
def agent(make: Callable[..., Node], server: Node) -> Node:
    return start_agent(make, server)


@contextlib.contextmanager
def flood(server: tuple[str, int], at_once: int) -> Generator[Callable[[], int]]:
    """Within the block, so many strangers at once. Gives a function that waits for more of them,
    and tells how many have come."""
    command = [sys.executable, str(STRANGERS), *map(str, (*server, at_once))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = process.stdout
        try:
            yield lambda: int(lines.readline())
        finally:
            process.kill()


def joins(server: tuple[str, int], token: str, name: str) -> bool:
    """False where it is to try again, as it is told: a handshake has its time, on any machine."""
    try:
        asyncio.run(join_mesh(server, token, name))
    except UnreachableError:
        return False
    return True


def test_strangers_do_not_end_the_server_nor_keep_others_from_joining(
    server: Node, agent: Node
) -> None:
    agent.eventually(lambda: is_connected(agent), "it is connected")
    before = server.children()["server"]
    port = split_address(address(server))
    tokens = [new_token(server) for _ in range(JOINS)]
    with flood(port, AT_ONCE) as so_far:
        for number, token in enumerate(tokens):
            server.eventually(lambda: joins(port, token, f"joined-{number}"), "it has joined")  # noqa: B023
        assert any(so_far() >= ABORTED for _ in range(ABORTED))
    assert server.children()["server"].pid == before.pid
    listed = json.loads(server.meshctl("node", "list", "-o", "json").output)
    assert {row["name"] for row in listed if row["connected"]} >= {"agent"}
    assert server.log.count("node agent connected") == 1


def answered(refusals: tuple[str, ...]) -> tuple[str, ...]:
    """Nothing, where the server did not take the connection in time."""
    return () if any("failed to connect" in one for one in refusals) else refusals


def test_a_clone_of_a_node_is_refused_and_the_server_says_so(server: Node, agent: Node) -> None:
    agent.eventually(lambda: is_connected(agent), "it is connected")
    stolen = NodeFile(agent.paths.node_file).load()

    async def refusals() -> tuple[str, ...]:
        said = (("meshd-instance", "clone"),)
        async with open_channel(address(server), stolen) as channel:
            register: Any = channel.stream_stream(f"/{NODES}/Register")(metadata=said)
            sign: Any = channel.unary_unary(METHOD)(b"", metadata=said)
            return await register.details(), await sign.details()

    told = server.eventually(lambda: answered(asyncio.run(refusals())), "both are answered")
    for refusal in told:
        assert "another machine is connected as node agent" in refusal
        assert "set another name here" in refusal
    said = "node agent: another machine with its name"
    server.eventually(lambda: said in server.meshctl("status").errors, "status says so")
    server.eventually(lambda: said in server.log, "the log says so")
    assert server.log.count(said) == 1
    assert is_connected(agent)


def test_a_copy_of_a_nodes_key_is_of_no_use_once_the_node_has_started_twice(
    server: Node, agent: Node
) -> None:
    file = agent.paths.node_file
    stolen = NodeFile(file).load()
    for _ in range(2):
        before = file.read_bytes()
        agent.ask("supervisor", wire.RestartRoles(("identity",)))
        agent.eventually(lambda before=before: file.read_bytes() != before, "it has another key")
        agent.eventually(lambda: is_connected(agent), "it is connected")

    async def refusal() -> str:
        async with open_channel(address(server), stolen) as channel:
            call: Any = channel.stream_stream(f"/{NODES}/Register")()
            return await call.details()

    (told,) = server.eventually(lambda: answered((asyncio.run(refusal()),)), "it is answered")
    assert "another machine has joined or has had its certificate renewed" in told
    refused = "an earlier certificate of it was refused"
    server.eventually(lambda: refused in server.meshctl("status").errors, "status says so")
    assert is_connected(agent)
