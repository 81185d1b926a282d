"""A record of which processes die costs itself: the node comes back without it, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.fleet.agent.remote import explain, open_channel
from meshd.fleet.joining.address import split_address
from meshd.fleet.joining.joining import join_mesh
from meshd.fleet.server import mcp
from meshd.model.workload import Workload
from meshd.node.agent import TYPES, decode
from tests.node.test_two_nodes import address, new_token, start_server
from tests.waiting import PATIENCE, Missing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    import grpc.aio

    from meshd.base.errors import MeshdError
    from meshd.fleet.joining.node import Credentials
    from tests.node.node import Node

_KILLED = """
import os, signal, sys
if sys.orig_argv[-1] == "mesh":
    from meshd.registry import snapshots
    take = snapshots.take
    def deadly(given, *arguments, **more):
        if any(one.key.name == "killer" for one in given.every):
            os.kill(os.getpid(), signal.SIGSEGV)
        return take(given, *arguments, **more)
    snapshots.take = deadly
"""
"""In place of a fault in a library that nobody knows of yet, which the object's replacement has,
too."""


@pytest.fixture
def mortal(make: Callable[..., Node]) -> Node:
    place = mortal_node(make, _KILLED)
    place.start()
    return place


def mortal_node(make: Callable[..., Node], program: str) -> Node:
    """A node of which each process runs a program when it begins."""
    place = make()
    (place.home / "sitecustomize.py").write_text(program)
    path = filter(None, (str(place.home), os.environ.get("PYTHONPATH")))
    place.environment["PYTHONPATH"] = ":".join(path)
    return place


def test_a_node_comes_back_without_the_object_that_kills_it(mortal: Node) -> None:
    write = mortal.write
    mortal.apply(write.dump(write.namespace("mesh", enrolled=True), write.service("good")))
    noted = mortal.paths.lib / "attempts.json"
    mortal.eventually(lambda: not noted.exists(), "what was applied has killed nobody")
    done = mortal.meshctl("apply", "-f", "-", text=write.dump(write.service("killer")))
    said = "Service mesh/killer is left out"

    def is_told(text: str = said) -> bool:
        status = mortal.meshctl("status")
        return text in status.output + status.errors

    nothing = "Service mesh/killer is not in force, nor is its closed replacement"
    mortal.eventually(is_told, f"status names it: {done}")
    found = f"replacement of {said}: a process"
    mortal.eventually(lambda: is_told(found), "status names what replaced it")
    mortal.eventually(lambda: said in mortal.log, "the log names it")
    mortal.eventually(lambda: is_told(nothing), "status says what holds")
    mortal.eventually(mortal.is_well, "all else is in force")
    assert mortal.meshctl("get", "service", "good", "-n", "mesh").status == 0
    assert mortal.meshctl("delete", "service", "killer", "-n", "mesh").status == 0
    mortal.eventually(lambda: not is_told(), "it is forgotten")


_SERVER_KILLED = """
import os, signal, sys
def deadly(module, function, is_poison):
    before = getattr(module, function)
    def replaced(*arguments, **more):
        if is_poison(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*arguments, **more)
    setattr(module, function, replaced)
if sys.orig_argv[-1] == "mesh":
    from meshd.registry import snapshots
    deadly(snapshots, "take", lambda *given: any(one.name == "kills-mesh" for one in given[4]))
if sys.orig_argv[-1] == "server":
    from meshd.fleet.server import mcp, rosters
    deadly(rosters.checked, "decode", lambda one, _: b'"name":"kills-server"' in bytes(one))
    deadly(
        mcp,
        "encode",
        lambda value: value["metadata"]["name"] == "kills-packing"
        and "notInForce" not in value["spec"],
    )
"""
"""As the OOM killer does, which leaves no process the time to say anything."""


class Joined:
    """A node that has joined, as far as its server can tell."""

    def __init__(self, server: Node, name: str, credentials: Credentials) -> None:
        self.inbox = Inbox(decode, None, TYPES)
        self.client = Client(
            name,
            TYPES,
            self.inbox,
            connect=lambda: open_channel(address(server), credentials),
            explain=self._explained,
            taken=self._used,
            changed=lambda: None,
            heard=lambda: None,
        )
        self.client.tell((workload(name, name), workload(name, f"{name}-too")))

    def _used(self) -> None:
        self.client.used()

    async def _explained(self, error: grpc.aio.AioRpcError) -> MeshdError:
        return explain(error, "the server")

    @property
    def heard_of(self) -> set[str]:
        """The workloads of other nodes, and the Services, that it has been told of."""
        services = self.inbox.values("core/v1/Service").keys()
        return {*self.inbox.values(mcp.WORKLOAD), *services}


def workload(node: str, name: str) -> Workload:
    uid, labels = f"mesh.{name}", {"app": name}
    return Workload(uid=uid, name=name, namespace="mesh", netns="", node=node, labels=labels)


def credentials_for(server: Node, name: str) -> Credentials:
    port, token = split_address(address(server)), new_token(server)
    return asyncio.run(join_mesh(port, token, name))[0]


@contextlib.asynccontextmanager
async def running(nodes: Iterable[Joined]) -> AsyncGenerator[None]:
    """Within the block, they are connected whenever their server is there."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.client.run()) for node in nodes]
        yield
        for task in tasks:
            task.cancel()


def test_a_server_comes_back_without_what_kills_its_roles_and_serves_all_others(
    make: Callable[..., Node],
) -> None:
    server = start_server(lambda: mortal_node(make, _SERVER_KILLED), grace="600s")
    write = server.write
    server.apply(write.dump(write.namespace("mesh", enrolled=True), write.service("harmless")))
    names = ("witness", "kills-server", "kills-mesh")
    credentials = {name: credentials_for(server, name) for name in names}
    done = server.meshctl("apply", "-f", "-", text=write.dump(write.service("kills-packing")))
    assert done.status == 0, done.errors
    said = (
        "Service mesh/kills-packing, which is left out",
        "what node kills-server reports, workload ",
        "workload kills-mesh/mesh.kills-mesh is left out: a process",
    )

    def is_told(*lines: str) -> bool | Missing:
        status = server.meshctl("status")
        missing = [one for one in lines if one not in status.output + status.errors]
        return Missing(f"{missing} in {status.errors}") if missing else True

    async def check() -> None:
        witness, kills_server, kills_mesh = (Joined(server, *one) for one in credentials.items())

        def hears(*names: str) -> bool | Missing:
            missing = {"mesh/harmless", *names} - witness.heard_of
            return Missing(missing) if missing or not witness.client.connected else True

        def later(condition: Callable[[], object], what: str) -> Awaitable[object]:
            return asyncio.to_thread(server.eventually, condition, what, 3 * PATIENCE)

        async with running((witness, kills_server)):
            await later(lambda: is_told(*said[:2]), "status names what killed the server role")
            own = "witness/mesh.witness"
            beside = "kills-server/mesh.kills-server-too"
            await later(lambda: hears(own, beside), "others are served, also of the same node")
            async with running((kills_mesh,)):
                await later(lambda: is_told(*said), "status names what killed the mesh role")
                await later(lambda: hears(own, "kills-mesh/mesh.kills-mesh-too"), "others are too")

    asyncio.run(check())
    server.eventually(server.is_well, "all else is in force")
