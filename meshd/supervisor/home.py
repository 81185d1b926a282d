"""What must be there before the first process starts: users, directories, and no other supervisor.

The whole of what the supervisor asks of the machine; each error says what to do about it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import grp
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Final

from meshd import accounts
from meshd.channel import check_length
from meshd.errors import InvalidInputError, MeshdError, SystemRefusedError
from meshd.settings import Paths, Settings
from meshd.supervisor.privileges import User, Users

_LONGEST_NAME: Final = "proxy-9999.1.sock"


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The supervisor's own files."""

    paths: Paths

    @property
    def directory(self) -> Path:
        return self.paths.run / "supervisor"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def record(self) -> Path:
        return self.directory / "children.json"

    def bootstrap(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def admin(self, name: str) -> Path:
        return self.paths.admin_run / f"{name}.sock"


def check_machine() -> None:
    """Raises SystemRefusedError."""
    if os.geteuid() != 0:
        raise SystemRefusedError(
            "meshd must be started by root: it gives each of its processes the few privileges"
            " that it needs"
        )
    if not any((Path(directory) / "setpriv").exists() for directory in os.get_exec_path()):
        raise SystemRefusedError("setpriv is not on PATH: install the package util-linux")


def find_users(settings: Settings) -> Users:
    """Raises InvalidInputError."""
    return Users(
        meshd=_find_user("user", settings.user),
        proxy=_find_user("proxy_user", settings.proxy_user),
        identity=_find_user("user", accounts.name_of("identity", settings.user)),
        server=_find_user("user", accounts.name_of("server", settings.user)),
        telemetry=_find_user("user", accounts.name_of("telemetry", settings.user)),
        roles=_find_group(f"{settings.user}-roles"),
        journal=_journal_group(),
    )


def _journal_group() -> int:
    try:
        return grp.getgrnam("systemd-journal").gr_gid
    except KeyError:
        return 0


def _find_group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidInputError(
            f"setting user: there is no group {name!r}; make it with:"
            f" echo 'g {name} -' | systemd-sysusers -"
        ) from None


def _find_user(setting: str, name: str) -> User:
    found = accounts.find(name, setting)
    if found.pw_uid == 0:
        raise InvalidInputError(f"setting {setting}: {name!r} is root; name a user of its own")
    return User(found.pw_uid, found.pw_gid)


def make_directories(home: Home, users: Users) -> None:
    """Owners and modes are set again each time. Raises SystemRefusedError, InvalidInputError."""
    paths = home.paths
    check_length(paths.admin_run / _LONGEST_NAME)
    meshd, proxy, identity = users.meshd, users.proxy, users.identity
    # Setgid, so that the sockets inside belong to the group that is to reach them. Sticky: roles
    # make their sockets in run, but never take away another's, and the mesh role has its files in
    # lib, but cannot put a directory of its own in the place of the keys.
    wanted = (
        (paths.etc, 0, 0, 0o755),
        (paths.config_directory, 0, 0, 0o755),
        (paths.certificates, 0, identity.gid, 0o750),
        (paths.lib, 0, meshd.gid, 0o1771),
        (paths.keys, identity.uid, identity.gid, 0o700),
        (paths.node, identity.uid, meshd.gid, 0o2750),
        (paths.run, 0, users.roles, 0o1775),
        (paths.netns, 0, 0, 0o755),
        (paths.held, 0, 0, 0o755),
        (home.directory, 0, 0, 0o755),
        (paths.plane.parent, meshd.uid, identity.gid, 0o2750),
        (paths.proxy_run, identity.uid, proxy.gid, 0o2750),
        (paths.resolver_run, meshd.uid, meshd.gid, 0o755),
        (paths.admin_run, proxy.uid, users.telemetry.gid, 0o2770),
    )
    for path, uid, gid, mode in wanted:
        try:
            path.mkdir(parents=True, exist_ok=True)
            there = path.stat()
            # Not where it is so already: a sandbox may forbid the setgid bit.
            if (there.st_uid, there.st_gid, there.st_mode & 0o7777) != (uid, gid, mode):
                os.chown(path, uid, gid)
                path.chmod(mode)
        except OSError as error:
            raise SystemRefusedError(f"{path}: cannot be made: {error.strerror}") from None
    _take_over(paths, identity)
    _hand_over(paths, users)


def _hand_over(paths: Paths, users: Users) -> None:
    """What an earlier version, in which one user had all roles, has left in the run directory goes
    to the roles that are to replace it. Raises SystemRefusedError."""
    successors = (
        (paths.run / "identities.json", users.identity),
        (paths.run / "telemetry.port", users.telemetry),
        (paths.run / "control.port", users.server),
        (paths.run / "server", users.server),
    )
    try:
        for path, user in successors:
            with contextlib.suppress(FileNotFoundError):
                there = path.lstat()
                ours = there.st_uid == users.meshd.uid
                if ours and (stat.S_ISDIR(there.st_mode) or there.st_nlink == 1):
                    os.chown(path, user.uid, user.gid, follow_symlinks=False)
        for path in paths.admin_run.glob("*.sock"):  # of proxies that go on
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, -1, users.telemetry.gid, follow_symlinks=False)
    except OSError as error:
        raise SystemRefusedError(
            f"{error.filename}: cannot be handed over: {error.strerror}"
        ) from None


def _take_over(paths: Paths, identity: User) -> None:
    """Keys of a version that had one user for all roles go to whom they belong now.

    Raises SystemRefusedError.
    """
    try:
        before = paths.keys / paths.node_file.name
        if before.exists() and not paths.node_file.exists():
            before.rename(paths.node_file)
            paths.node_file.chmod(0o640)
            os.chown(paths.node_file, identity.uid, paths.node.stat().st_gid)
        for path in paths.keys.rglob("*"):
            there = path.lstat()
            # Another name for a file elsewhere is none of ours.
            if there.st_uid != identity.uid and (path.is_dir() or there.st_nlink == 1):
                os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
    except OSError as error:
        raise SystemRefusedError(
            f"{error.filename}: cannot be given to the user of the identity role: {error.strerror}"
        ) from None


@contextlib.contextmanager
def only_one(home: Home) -> Generator[None]:
    """Raises MeshdError when another supervisor runs here."""
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise MeshdError(
                f"meshd runs already in {home.paths.run} (pid {pid}); stop it first,"
                " or set MESHD_HOME to another directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, text: str, gid: int = 0) -> None:
    """Whole or not at all; readable by the group. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchown(descriptor, 0, gid)
        file.write(text)
    new.rename(path)
