"""Hands files of a version that had one user for all roles to their present owners.

That version wrote all that is in /run/meshd and /var/lib/meshd as the user of the mesh role.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.settings import Paths
from meshd.supervisor.privileges import User, Users

_ROLES: Final = ("capture", "identity", "mesh", "server", "supervisor", "telemetry")


def take_over(paths: Paths, users: Users) -> None:
    """Change the owners of files; those that are right stay. Raises SystemRefusedError."""
    try:
        for path in _below(paths.keys):
            _give(path, users.identity)
        _take_node_key(paths, users.identity)
        _close_state(paths)
        for path, user in (
            (paths.allowed, users.identity),
            (paths.healthy, users.meshd),
            (paths.workloads, users.meshd),
        ):
            _move(paths.run / path.name, path, user)
        # Those of proxies that go on.
        for path in paths.admin_run.glob("*.sock"):
            os.chown(path, -1, users.telemetry.gid, follow_symlinks=False)
        for path in (*map(paths.socket, _ROLES), paths.telemetry_port, paths.control_port):
            _point(paths.run / path.name, path)
    except OSError as error:
        raise SystemRefusedError(
            f"{error.filename}: its owner cannot be changed: {error.strerror}"
        ) from None


def _below(directory: Path) -> Iterator[Path]:
    """Yield the paths below a directory; symbolic links are not followed."""
    for place, directories, files in os.walk(directory):
        yield from (Path(place, name) for name in (*directories, *files))


def _give(path: Path, user: User) -> None:
    there = path.lstat()
    # Another name for a file elsewhere is none of ours.
    is_ours = stat.S_ISDIR(there.st_mode) or (stat.S_ISREG(there.st_mode) and there.st_nlink == 1)
    if is_ours and there.st_uid != user.uid:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _take_node_key(paths: Paths, identity: User) -> None:
    """Move the node's key from where the mesh role could read it."""
    directory = paths.lib / "node"
    with contextlib.suppress(FileNotFoundError):
        there = directory.lstat()
        # The mesh role can make a directory of that name, but none that is not its own.
        if stat.S_ISDIR(there.st_mode) and there.st_uid == identity.uid:
            _move(directory / paths.node_file.name, paths.node_file, identity)
            directory.rmdir()


def _close_state(paths: Paths) -> None:
    """Set modes: formerly nobody else could enter /var/lib/meshd, so files in it have any mode."""
    for path in paths.lib.iterdir():
        there = path.lstat()
        is_ours = stat.S_ISDIR(there.st_mode) or stat.S_ISREG(there.st_mode)
        if is_ours and path != paths.keys and there.st_mode & 0o077:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(descriptor, stat.S_IMODE(there.st_mode) & 0o700)
            finally:
                os.close(descriptor)


def _move(before: Path, path: Path, user: User) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(before.lstat().st_mode):
            os.chown(before, user.uid, user.gid)
            before.rename(path)


def _point(before: Path, path: Path) -> None:
    """Link a file's former place to its present one."""
    target = path.relative_to(before.parent)
    if before.is_symlink() and before.readlink() == target:
        return
    before.unlink(missing_ok=True)
    before.symlink_to(target)
