"""The users of meshd's processes, by which unix sockets recognise peers."""

from __future__ import annotations

import pwd
from typing import Final

from meshd.base.errors import InvalidInputError

_SUFFIXES: Final = {
    "mesh": "",
    "identity": "-identity",
    "server": "-server",
    "telemetry": "-telemetry",
    "kubernetes": "-kubernetes",
}


def name_of(role: str, user: str) -> str:
    """Return the name of a role's user; it begins with ``user``, the setting, which is the mesh
    role's."""
    return user + _SUFFIXES[role]


def uid_of(role: str, user: str) -> int:
    """Raises InvalidInputError when there is no such user."""
    return find(name_of(role, user)).pw_uid


def find(name: str, setting: str = "user") -> pwd.struct_passwd:
    """Raises InvalidInputError."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise InvalidInputError(
            f"setting {setting}: there is no user {name!r}; make it with:"
            f" echo 'u {name} -' | systemd-sysusers -"
        ) from None
