"""What has to exist before the first process starts: users, and no other supervisor.

These are all the supervisor's requirements on the machine; each error says what to do about it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import grp
import os
from collections.abc import Generator
from pathlib import Path

from meshd.base import accounts
from meshd.base.errors import InvalidInputError, MeshdError, SystemRefusedError
from meshd.settings import Paths, Settings
from meshd.supervisor.privileges import User, Users


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
        kubernetes=_find_user("user", accounts.name_of("kubernetes", settings.user)),
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
        raise InvalidInputError(f"setting {setting}: {name!r} is root; give another user")
    return User(found.pw_uid, found.pw_gid)


@contextlib.contextmanager
def only_one(home: Home) -> Generator[None]:
    """Raises MeshdError when another supervisor runs here."""
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whoever can read it can lock it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise MeshdError(
                f"meshd is already running in {home.paths.run} (pid {pid}); stop it first,"
                " or set MESHD_HOME to another directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, text: str, gid: int = 0) -> None:
    """Write the file as a whole or not at all, readable by the group. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchown(descriptor, 0, gid)
        file.write(text)
    new.rename(path)
