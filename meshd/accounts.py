"""The users of meshd's processes: who is who at the other end of a unix socket."""

from __future__ import annotations

import pwd
from typing import Final

from meshd.errors import InvalidInputError

_SUFFIXES: Final = {
    "mesh": "",
    "identity": "-identity",
    "server": "-server",
    "telemetry": "-telemetry",
}


def name_of(role: str, user: str) -> str:
    """``user``: the setting of that name, the mesh role's user; the others' begin with it."""
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
