"""The table of meshd's directories, with owners and modes, and their creation.

Each role writes only below directories of its own, so that none can put a socket or a file in the
place of another's. The same table is in systemd/tmpfiles.d, since the sandbox of the service makes
all other directories read-only.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.settings import Paths
from meshd.supervisor.privileges import ROOT, Users
from meshd.wire.channel import check_length

_LONGEST_NAME: Final = "proxy-9999.1.sock"


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    """A directory with its owner and mode.

    The letter 2 (setgid) in ``mode``: sockets inside belong to the group that may connect to them.
    The letter 1 (sticky): users who may create files inside cannot remove those of others.
    """

    path: Path
    uid: int
    gid: int
    mode: int


def wanted(paths: Paths, users: Users) -> tuple[Directory, ...]:
    """Return the directories; each comes after the one that contains it. Pure."""
    mesh, proxy, identity = users.meshd, users.proxy, users.identity
    server, telemetry, kubernetes = users.server, users.telemetry, users.kubernetes
    return (
        Directory(paths.etc, 0, 0, 0o755),
        Directory(paths.config_directory, 0, 0, 0o755),
        Directory(paths.certificates, 0, identity.gid, 0o750),
        # The mesh role's, but that it cannot put a directory of its own in the place of the keys.
        Directory(paths.lib, 0, mesh.gid, 0o1771),
        Directory(paths.keys, identity.uid, identity.gid, 0o700),
        Directory(paths.run, 0, 0, 0o755),
        Directory(paths.netns, 0, 0, 0o755),
        Directory(paths.held, 0, 0, 0o755),
        # The roles' own, and sockets in them that several others use: who may ask what is looked
        # at there.
        Directory(paths.own("supervisor"), ROOT.uid, users.roles, 0o755),
        Directory(paths.own("identity"), identity.uid, users.roles, 0o755),
        Directory(paths.own("mesh"), mesh.uid, users.roles, 0o755),
        Directory(paths.own("telemetry"), telemetry.uid, telemetry.gid, 0o755),
        Directory(paths.own("kubernetes"), kubernetes.uid, kubernetes.gid, 0o755),
        # With a socket for one other role.
        Directory(paths.own("capture"), ROOT.uid, mesh.gid, 0o2750),
        Directory(paths.locate.parent, ROOT.uid, kubernetes.gid, 0o2750),
        Directory(paths.own("server"), server.uid, mesh.gid, 0o2750),
        Directory(paths.plane.parent, mesh.uid, identity.gid, 0o2750),
        Directory(paths.uplink.parent, identity.uid, mesh.gid, 0o2750),
        Directory(paths.proxy_run, identity.uid, proxy.gid, 0o2750),
        Directory(paths.resolver_run, mesh.uid, mesh.gid, 0o755),
        Directory(paths.admin_run, proxy.uid, telemetry.gid, 0o2750),
    )


def make(paths: Paths, users: Users) -> None:
    """Create the directories and set owners and modes again. Raises SystemRefusedError,
    InvalidInputError."""
    check_length(paths.admin_run / _LONGEST_NAME)
    check_length(paths.socket("supervisor"))
    for one in wanted(paths, users):
        try:
            one.path.mkdir(parents=True, exist_ok=True)
            there = one.path.stat()
            # Not where it is so already: a sandbox may forbid the setgid bit.
            if (there.st_uid, there.st_gid, there.st_mode & 0o7777) != (one.uid, one.gid, one.mode):
                os.chown(one.path, one.uid, one.gid)
                one.path.chmod(one.mode)
        except OSError as error:
            raise SystemRefusedError(f"{one.path}: cannot be created: {error.strerror}") from None
