"""meshctl, telemetry, mesh → supervisor: the processes of this node."""

from __future__ import annotations

import msgspec

from meshd.api.base import Seconds, UnixSeconds
from meshd.wire.message import Message


class Children(Message, frozen=True):
    """A question for the state of the processes."""


class RoleStatus(msgspec.Struct, frozen=True):
    """One process that the supervisor keeps running."""

    name: str
    pid: int
    """0 when it does not run."""
    state: str
    restarts: int
    since: UnixSeconds
    """Unix seconds of its last start."""
    problem: str = ""


class ChildStates(Message, frozen=True):
    children: tuple[RoleStatus, ...]


class RestartRoles(Message, frozen=True):
    """Restart these roles, and what else the settings on disk concern, without a pause in
    traffic."""

    names: tuple[str, ...]


class ReloadNames(Message, frozen=True):
    """Reload the resolver's tables, which have changed for the ``version``-th time."""

    version: int


class ReplacePool(Message, frozen=True):
    """Replace each proxy by a new process, one after the other in each pool, losing nothing."""


class RunProbe(Message, frozen=True):
    """Run a program that a WorkloadGroup names as its members' probe, with the rights of a
    member."""

    command: tuple[str, ...]
    seconds: Seconds
    workload: str
    """The member's uid. Where that lives the supervisor sees from what is captured."""


class Probed(Message, frozen=True):
    passed: bool


class FetchKeys(Message, frozen=True):
    """Ask a URL that a RequestAuthentication names for the keys of an issuer."""

    url: str
    seconds: Seconds


class FetchedKeys(Message, frozen=True):
    keys: str = ""
    """JSON Web Key Set; empty: there is none."""
    problem: str = ""


Messages = (
    RunProbe
    | Probed
    | FetchKeys
    | FetchedKeys
    | Children
    | ChildStates
    | RestartRoles
    | ReloadNames
    | ReplacePool
)
