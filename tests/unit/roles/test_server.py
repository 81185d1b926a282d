"""One thing that nodes cannot be told of costs itself, and is named."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.fleet.membership import csr
from meshd.fleet.server import mcp
from meshd.roles.server import Server
from meshd.settings import Paths, Settings
from meshd.wire.joining import Peer
from meshd.xds.resources import Resource, Resources
from tests.waiting import PATIENCE


def namespace(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name} | metadata}


def test_an_object_that_no_message_can_hold_costs_itself_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    published: list[Resources] = []

    def publish(shared: Resources, _: Callable[[str], Resources]) -> None:
        published.append(shared)

    async def run() -> wire.Message:
        server = Server(Settings(role="server"), Paths.from_environment())
        monkeypatch.setattr(server.plane, "publish", publish)
        objects = (namespace("bad", creationTimestamp="never"), namespace("good"))
        server.shared(wire.Shared((), objects))
        server.packing.finish()
        return await server.answer(wire.Nodes())

    answer = asyncio.run(run())
    assert "good" in published[0].of_type("core/v1/Namespace")
    assert isinstance(answer, wire.NodeStatuses)
    (problem,) = answer.problems
    assert "Namespace bad" in problem


@pytest.mark.parametrize("lost", [False, True])
def test_nodes_keep_what_a_server_has_lost_but_for_policies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    published: list[Resources] = []

    def publish(shared: Resources, _: Callable[[str], Resources]) -> None:
        published.append(shared)

    async def run() -> None:
        server = Server(Settings(role="server"), Paths.from_environment())
        monkeypatch.setattr(server.plane, "publish", publish)
        server.shared(wire.Shared((), (), lost=lost))
        server.packing.finish()

    asyncio.run(run())
    (shared,) = published
    assert shared.removes("security.istio.io/v1/PeerAuthentication")
    assert shared.removes("meshd.io/v1/Workload")
    assert shared.removes("networking.istio.io/v1/VirtualService") is not lost


def test_messages_to_nodes_are_packed_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    threads: list[threading.Thread] = []
    encode = mcp.encode

    def seen(value: JsonObject) -> Resource:
        threads.append(threading.current_thread())
        return encode(value)

    monkeypatch.setattr(mcp, "encode", seen)

    async def run() -> None:
        server = Server(Settings(role="server"), Paths.from_environment())
        published = asyncio.Event()

        def publish(*_: object) -> None:
            published.set()

        monkeypatch.setattr(server.plane, "publish", publish)
        packing = asyncio.ensure_future(server.packing.run())
        server.shared(wire.Shared((), (namespace("good"),)))
        async with asyncio.timeout(PATIENCE):
            await published.wait()
        packing.cancel()

    asyncio.run(run())
    assert threads
    assert threading.main_thread() not in threads


def test_a_server_that_ends_while_it_packs_has_not_died_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))

    def ends(_: JsonObject) -> Resource:
        raise KeyboardInterrupt

    monkeypatch.setattr(mcp, "encode", ends)

    async def run() -> None:
        server = Server(Settings(role="server"), Paths.from_environment())
        server.shared(wire.Shared((), (namespace("good"),)))
        with pytest.raises(KeyboardInterrupt):
            server.packing.finish()
        server.ended()

    asyncio.run(run())
    assert not list(tmp_path.rglob("attempts.json"))


def test_a_node_whose_certificate_request_kills_the_role_is_refused_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    path = Paths.from_environment().own("server") / "attempts.json"
    path.parent.mkdir(parents=True)
    seen: list[bytes] = []

    def read(request: bytes) -> csr.Asked:
        seen.append(path.read_bytes())
        raise InvalidInputError(request.decode())

    monkeypatch.setattr(csr, "read", read)
    name = "the certificate request of node deadly"
    for _ in range(3):
        Attempts(path).begin({name: ("", None)})

    async def run() -> wire.Message:
        server = Server(Settings(role="server"), Paths.from_environment())
        with pytest.raises(InvalidInputError, match=f"{name} is left out"):
            await server.sign(Peer("deadly", "1", 0), b"none", 0)
        assert not seen
        with pytest.raises(InvalidInputError, match="none"):
            await server.sign(Peer("other", "1", 0), b"none", 0)
        return await server.answer(wire.Nodes())

    answer = asyncio.run(run())
    assert b"the certificate request of node other" in seen[0]
    assert not Attempts(path).knows("the certificate request of node other")
    assert isinstance(answer, wire.NodeStatuses)
    assert any(name in problem for problem in answer.problems)
