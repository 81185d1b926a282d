"""An agent's mesh role without a connection."""

from __future__ import annotations

import asyncio
import types
from pathlib import Path
from typing import Any, cast

from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.base.attempts import Attempts
from meshd.base.json_values import JsonObject
from meshd.compile.policy.peer_authentication import Mode, peer_policy
from meshd.compile.replacement.lost_configuration import closed_for_lost
from meshd.config.store import Store
from meshd.fleet.agent.inbox import Held
from meshd.fleet.server import mcp
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload
from meshd.node.agent import TYPES, Agent
from meshd.node.settling import Settling
from meshd.settings import Paths, Settings
from meshd.xds.exchange import Request
from meshd.xds.resources import Resources
from meshd.xds.unordered import UnorderedStream

DB = Workload(uid="shop.db", name="db", namespace="shop", netns="/db", labels={"app": "db"})
ROOT = "istio-system"


class AgentRole:
    """The role. ``hear`` has it told the whole configuration, ``follow`` all that is published."""

    def __init__(self, home: Path, attempts: Attempts | None = None) -> None:
        lib = home / "lib"
        lib.mkdir(parents=True, exist_ok=True)
        self._home = home
        self.store = Store(home / "files", lib)
        self._mesh = mesh = types.SimpleNamespace(
            store=self.store,
            settling=Settling(),
            work=types.SimpleNamespace(attempts=attempts),
            reconciler=types.SimpleNamespace(contacted=lambda: None),
            hear_of=print,
            certificates=types.SimpleNamespace(states={}),
            further_problems=[],
        )
        settings = Settings(role="agent", server="boss", node="n")
        paths = Paths(home / "etc", lib, home / "run")
        self.agent: Any = Agent(cast("Any", mesh), settings, paths)

    def hear(self, objects: tuple[JsonObject, ...]) -> None:
        inbox = self.agent._inbox
        for url in TYPES:
            found = {
                one.name: Held(one.version, one.body)
                for one in map(mcp.encode, objects)
                if one.type_url == url
            }
            removed = [name for name in inbox.versions(url) if name not in found]
            inbox.take(url, found.items(), removed)
            asyncio.run(self.agent._take())

    def follow(self, published: Resources) -> None:
        """Come back to a server that publishes this, and take all that it tells."""
        stream = UnorderedStream(published)
        inbox = self.agent._inbox
        for url in TYPES:
            stream.receive(Request(url, ("*",), initial_versions=inbox.versions(url)))
        while response := stream.next():
            found = [(one.name, Held(one.version, one.body)) for one in response.resources]
            _, reason = inbox.take(response.type_url, found, response.removed)
            error = reason or None
            stream.receive(Request(response.type_url, nonce=response.nonce, error=error))
        asyncio.run(self.agent._take())

    def restarted(self) -> AgentRole:
        """Return the next role of this node, which reads what this one has kept on disk."""
        self.agent._kept.path.write_bytes(self.agent._inbox.dump())
        return AgentRole(self._home)

    @property
    def problems(self) -> list[str]:
        return [found for each in self._mesh.further_problems if (found := each())]

    @property
    def workloads(self) -> list[str]:
        return list(self.agent._inbox.values(mcp.WORKLOAD))

    @property
    def refused(self) -> list[str]:
        return list(self.agent._inbox.refused.values())

    def mode(self, *, knows_the_mark: bool = True) -> Mode:
        policies = (one for one in self.store.objects.values())
        found = Snapshot(
            peer_authentications=tuple(
                one for one in policies if isinstance(one, PeerAuthentication)
            )
        )
        if knows_the_mark and self.store.lost:
            found = closed_for_lost(found)
        return peer_policy(found.peer_authentications, DB, ROOT).mode
