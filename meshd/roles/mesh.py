"""The mesh role: configuration and workloads in, Envoy's configuration and placements out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshd import wire
from meshd.base import accounts
from meshd.node.api import Control
from meshd.node.declarations import Declarations
from meshd.node.reconciler import Mesh
from meshd.node.sharing import Sharing
from meshd.node.state_directory import StateDirectory
from meshd.settings import Paths, Settings
from meshd.wire import channel

if TYPE_CHECKING:
    from meshd.node.agent import Agent


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled."""
    mesh = Mesh(settings, paths)
    state = StateDirectory(paths.lib)
    mesh.worries.append(state.look)
    await mesh.xds.start(paths.plane)
    agent = _agent(mesh, settings, paths) if settings.role == "agent" else None
    control = Control(mesh, settings, paths, agent)
    sharing = (
        Sharing(mesh, settings.node_name, paths.lib / "elsewhere.json", control.handle)
        if settings.role == "server"
        else None
    )
    session = sharing.session if sharing else channel.answering(control.handle)
    others = accounts.uid_of("server", settings.user)
    telemetry = accounts.uid_of("telemetry", settings.user)
    await channel.listen(
        paths.socket("mesh"),
        session,
        uids={0, others, telemetry},
        only={others: (wire.Follow,), telemetry: (wire.Status,)},
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mesh.settle_for_ever())
            tasks.create_task(mesh.own.run())
            tasks.create_task(mesh.capture.run())
            tasks.create_task(mesh.identity.run())
            tasks.create_task(mesh.resolving.run())
            tasks.create_task(mesh.store.watch())
            tasks.create_task(state.watch())
            tasks.create_task(Declarations(mesh).run())
            if sharing:
                tasks.create_task(sharing.kept.run())
            if agent:
                tasks.create_task(agent.run())
    except asyncio.CancelledError:
        mesh.work.ended()
        raise
    finally:
        await mesh.checker.close()
        await mesh.xds.stop()


def _agent(mesh: Mesh, settings: Settings, paths: Paths) -> Agent:
    # Certificates' library and its ten megabytes are for those that need them.
    from meshd.node.agent import Agent  # noqa: PLC0415

    return Agent(mesh, settings, paths)
