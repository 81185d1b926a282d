"""The capture role: serves capture.sock. Must never import grpc, which does not survive fork."""

from __future__ import annotations

import os
import pwd

from meshd import channel
from meshd.capture.namespaces import Pins
from meshd.capture.session import CaptureService
from meshd.discovery.held_starts import HeldStarts
from meshd.errors import InvalidInputError
from meshd.roles.resuming import Resuming
from meshd.settings import Paths, Settings


async def run(settings: Settings, paths: Paths) -> None:
    """Until cancelled. Raises MeshdError when it cannot start."""
    if os.geteuid() != 0:
        raise InvalidInputError("the capture role enters namespaces: it must be started by root")
    try:
        user = pwd.getpwnam(settings.user)
    except KeyError:
        raise InvalidInputError(
            f"setting user: there is no user {settings.user!r}; systemd-sysusers makes it"
        ) from None
    resuming = Resuming(HeldStarts(paths.held))
    pins = Pins(paths.netns)
    service = CaptureService(
        settings.capture, pins, fail_open=settings.fails_open, served=resuming.served
    )
    path = paths.socket("capture")
    server = await channel.listen(path, service.session, uids={0, user.pw_uid})
    os.chown(path, 0, user.pw_gid)
    try:
        async with server:
            await server.serve_forever()
    finally:
        await service.close()
        await resuming.close()
