"""One thing that nodes cannot be told of costs itself, and is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.roles.server import Server
from meshd.settings import Paths, Settings
from meshd.xds.resources import Resources


def namespace(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name} | metadata}


def test_an_object_that_no_message_can_hold_is_left_out_and_named(
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
        return await server.answer(wire.Nodes())

    answer = asyncio.run(run())
    assert list(published[0].of_type("core/v1/Namespace")) == ["good"]
    assert isinstance(answer, wire.NodeStatuses)
    (problem,) = answer.problems
    assert "Namespace bad" in problem
