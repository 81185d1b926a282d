"""The table of users, groups and capabilities of processes, and setpriv(1)'s command lines for
it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Final


class Role(enum.StrEnum):
    CAPTURE = "capture"
    IDENTITY = "identity"
    MESH = "mesh"
    TELEMETRY = "telemetry"
    SERVER = "server"
    KUBERNETES = "kubernetes"


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int


@dataclasses.dataclass(frozen=True, slots=True)
class Users:
    meshd: User
    """The mesh role."""
    proxy: User
    identity: User
    server: User
    telemetry: User
    """Its group may reach the proxies' admin sockets."""
    kubernetes: User
    roles: int
    """The group of all roles, who make their sockets in one directory."""
    journal: int = 0
    """The group that may read the journal; 0: there is none."""

    @property
    def uids(self) -> frozenset[int]:
        """Return the uids of all of meshd's processes that are not root."""
        ours = (self.meshd, self.proxy, self.identity, self.server, self.telemetry)
        return frozenset(user.uid for user in (*ours, self.kubernetes, STRANGER))


CAPTURE_CAPABILITIES: Final = (
    "net_admin",  # iptables, routes and rules, SO_MARK of the probe
    "net_raw",  # the legacy tables are read and written through a raw socket
    "sys_admin",  # setns(2), and mount(2) for the pins
    "sys_ptrace",  # /proc/PID/ns/net of another user's process, as container runtimes name it
)
PROXY_CAPABILITIES: Final = (
    "net_admin",  # SO_MARK, and IP_TRANSPARENT for the client's own address
    "net_bind_service",  # a Gateway's ports 80 and 443
    "sys_admin",  # setns(2) into a workload's namespace
)
ROOT: Final = User(0, 0)
STRANGER: Final = User(65534, 65534)
"""nobody: has no file of ours, and reads what everybody may."""


def role_command(role: Role, users: Users, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line of a role; each role has a user of its own, so none can read
    another's files."""
    who = {
        Role.CAPTURE: _as_user(ROOT),
        Role.IDENTITY: _as_user(users.identity, users.roles),
        Role.MESH: _as_user(users.meshd, users.roles, users.telemetry.gid),
        Role.SERVER: _as_user(users.server, users.roles),
        Role.KUBERNETES: _as_user(users.kubernetes, users.roles),
        Role.TELEMETRY: _as_user(users.telemetry, users.roles, users.journal),
    }
    kept = CAPTURE_CAPABILITIES if role is Role.CAPTURE else ()
    return (*who[role], *_bounded(kept), "--", *command)


def proxy_command(users: Users, command: Sequence[str]) -> tuple[str, ...]:
    return (
        *_as_user(users.proxy),
        *_bounded(PROXY_CAPABILITIES, inherited=True),
        "--",
        *command,
    )


def stranger_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line of a process that talks to the Internet and must not reach any
    key."""
    return (*_as_user(STRANGER), *_bounded(()), "--", *command)


def _as_user(user: User, *more: int) -> tuple[str, ...]:
    """Return setpriv's options for a user; ``more`` are further groups, of which 0 is none."""
    listed = ",".join(str(group) for group in more if group)
    groups = f"--groups={listed}" if listed else "--clear-groups"
    return ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", groups)


def _bounded(capabilities: Sequence[str], *, inherited: bool = False) -> tuple[str, ...]:
    """Return options that limit capabilities to these; ``inherited`` keeps them for a user who is
    not root."""
    only = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    kept = only if inherited else "-all"
    return (
        f"--inh-caps={kept}",
        f"--ambient-caps={kept}",
        f"--bounding-set={only}",
        "--no-new-privs",
    )
