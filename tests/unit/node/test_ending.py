"""Connections are judged when the rules about a workload change, and the proxies have them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshd import wire
from meshd.api.authorization_policy.types import AuthorizationPolicy, AuthorizationPolicySpec
from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.base.errors import SystemRefusedError, UnreachableError
from meshd.model.open_connection import OpenConnection
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.ending import Connections, Ending
from meshd.wire import channel

WORKLOAD = Workload(
    uid="shop.web",
    name="web",
    namespace="shop",
    netns="/n",
    addresses=("198.18.0.9",),
    labels={"app": "web"},
)
OPEN = OpenConnection("198.18.0.1", 40000, "198.18.0.9", 9000)
NOTHING = AuthorizationPolicy(
    metadata=ObjectMeta(name="nothing", namespace="shop"),
    spec=AuthorizationPolicySpec(selector=WorkloadSelector({"app": "web"})),
)
OTHER = AuthorizationPolicy(
    metadata=ObjectMeta(name="nothing", namespace="else"), spec=AuthorizationPolicySpec()
)


class World:
    """As much of a mesh, and of the capture role, as is looked at."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails = False
        self.publishing = SimpleNamespace(in_force=None, entrances={})
        mesh: Any = SimpleNamespace(
            publishing=self.publishing,
            options=MeshOptions(),
            running=(WORKLOAD,),
            xds=SimpleNamespace(wait_settled=self._settled),
        )
        connections: Any = self
        self.ending = Ending(mesh, connections, 5)

    def publish(self, *policies: AuthorizationPolicy, gone: bool = False) -> None:
        workloads = {} if gone else {WORKLOAD.uid: WORKLOAD}
        self.publishing.in_force = Snapshot(authorization_policies=policies, workloads=workloads)
        self.publishing.entrances = {WORKLOAD.uid: SimpleNamespace(ports={})}

    def steps(self) -> list[str]:
        """What happens until nothing is left to be done."""
        self.events.clear()
        while asyncio.run(self.ending.step()):
            pass
        return self.events

    async def _settled(self, _: float) -> bool:
        self.events.append("proxies have it")
        return True

    async def of(self, uid: str) -> tuple[OpenConnection, ...]:
        assert uid == WORKLOAD.uid
        if self.fails:
            raise SystemRefusedError("not now")
        return (OPEN,)

    async def end(self, uid: str, those: tuple[OpenConnection, ...]) -> int:
        assert (uid, those) == (WORKLOAD.uid, (OPEN,))
        self.events.append("ended")
        return len(those)


def test_connections_end_once_the_proxies_have_the_rules_and_are_looked_at_twice() -> None:
    world = World()
    assert not world.steps()
    world.publish()
    assert not world.steps()
    world.publish(OTHER)
    assert not world.steps()
    world.publish(OTHER, NOTHING)
    assert world.steps() == ["proxies have it", "ended"] * 2
    assert not world.steps()
    world.publish(NOTHING)
    assert not world.steps()


def test_a_change_back_ends_nothing() -> None:
    world = World()
    for policies in ((), (NOTHING,)):
        world.publish(*policies)
        world.steps()
    world.publish()
    assert world.steps() == ["proxies have it"] * 2


def test_all_rules_since_connections_were_judged_count() -> None:
    """One that came between two changes of which nothing was judged was allowed, too."""
    world = World()
    world.publish(NOTHING)
    world.steps()
    world.publish()
    asyncio.run(world.ending.step())
    world.publish(NOTHING)
    assert world.steps() == ["proxies have it", "ended"] * 2


def test_what_was_in_force_before_is_not_known_at_the_start() -> None:
    world = World()
    world.publish(NOTHING)
    assert not world.steps()


def test_a_workload_that_leaves_has_nothing_to_be_judged() -> None:
    world = World()
    world.publish()
    world.steps()
    world.publish(NOTHING)
    asyncio.run(world.ending.step())
    world.publish(NOTHING, gone=True)
    assert not world.steps()


def test_why_connections_may_be_open_is_said(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.publish()
    world.steps()
    world.publish(NOTHING)
    world.fails = True
    with caplog.at_level(logging.WARNING):
        assert world.steps() == ["proxies have it"] * 2
    (line,) = caplog.messages
    assert "shop/web: connections that policies deny may be open: not now" in line


def test_nothing_ends_where_the_setting_says_so() -> None:
    mesh: Any = None
    connections: Any = None
    asyncio.run(Ending(mesh, connections, 0).run())


def test_other_answers_of_the_capture_role_are_passed_over(tmp_path: Path) -> None:
    async def session(connection: channel.Connection[Any]) -> None:
        await connection.send(wire.Observed(()))
        match await connection.receive():
            case wire.ListConnections():
                await connection.send(wire.OpenConnections((OPEN,)))
            case wire.EndConnections(connections=those):
                await connection.send(wire.Ended(len(those)))
            case _:
                return

    async def ask() -> None:
        server = await channel.listen(tmp_path / "s", wire.CAPTURE, session, uids={0})
        async with server:
            connections = Connections(tmp_path / "s")
            assert await connections.of("shop.web") == (OPEN,)
            assert await connections.end("shop.web", (OPEN,)) == 1
        with pytest.raises(UnreachableError):
            await Connections(tmp_path / "none").of("shop.web")

    asyncio.run(ask())
