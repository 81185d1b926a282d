"""The capture role: serves capture.sock. It must never import grpc, which does not survive fork."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Mapping

from meshd import wire
from meshd.base import accounts
from meshd.base.errors import InvalidInputError
from meshd.base.threads import in_thread
from meshd.capture.pods import located
from meshd.capture.pods.namespaces import Pins
from meshd.capture.session import CaptureService
from meshd.cni.installation import Installation
from meshd.model.workload import HostService
from meshd.node.resuming import Resuming
from meshd.node.unit_changes import UnitChanges
from meshd.settings import Paths, Settings
from meshd.wire import channel, doors, locating
from meshd.workloads import strays
from meshd.workloads.host.held_starts import HeldStarts


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled. Raises MeshdError if the role cannot start."""
    if os.geteuid() != 0:
        raise InvalidInputError("the capture role enters namespaces: it must be started by root")
    mesh = accounts.uid_of("mesh", settings.user)
    resuming = Resuming(HeldStarts(paths.held))
    pins = Pins(paths.netns)
    service = CaptureService(
        settings.capture,
        pins,
        fail_open=settings.fails_open,
        served=resuming.served,
        bypasses=_bypasses,
        change=UnitChanges().change,
        proxy_user=accounts.find(settings.proxy_user, "proxy_user").pw_uid,
    )
    path = paths.socket("capture")
    server = await channel.listen(path, wire.CAPTURE, service.session, uids={0, mesh})
    try:
        async with server, asyncio.TaskGroup() as working:
            if settings.kubernetes.enabled:
                working.create_task(_serve_containers(settings, paths))
            else:
                await Installation(settings.kubernetes, paths.cni).end()
            working.create_task(server.serve_forever())
    finally:
        await service.close()
        await resuming.close()


async def _serve_containers(settings: Settings, paths: Paths) -> None:
    """Keep the CNI plugin installed, and find pods that run already, until cancelled."""
    kubernetes = accounts.uid_of("kubernetes", settings.user)
    session = channel.answering(_locate)
    uids = {0, kubernetes}
    async with await channel.listen(paths.locate, doors.LOCATING, session, uids=uids):
        plugin = Installation(settings.kubernetes, paths.cni, fails_open=settings.fails_open)
        await plugin.run()


async def _locate(request: locating.Locate) -> wire.Message:
    find = functools.partial(located.locate, request.pods)
    return locating.Located(await in_thread("looking for pods", find))


def _bypasses(services: Mapping[str, HostService]) -> Mapping[str, str]:
    return strays.bypasses(services, strays.running())
