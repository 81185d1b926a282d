"""server ↔ mesh, one connection for as long as both live: what nodes are told.

``parts`` splits long messages, and puts them together again.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from meshd.api.base import UnixSeconds
from meshd.base.json_values import JsonObject
from meshd.model.workload import Workload
from meshd.wire.message import Message

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Splice(msgspec.Struct, frozen=True):
    """The place of a part of a sequence in the sequence that was told before."""

    begin: _Number
    removed: _Number
    """How many items from ``begin`` on the part replaces."""


class Follow(Message, frozen=True):
    """A question for what other nodes are told, answered again at each change."""

    workloads: tuple[Workload, ...] | None = None
    """All workloads of other nodes, from now on; None: as they were."""
    at: Splice | None = None
    """Where the workloads belong in those that were told before; None: they are all."""
    more: bool = False
    """The next message belongs to this one."""


class Shared(Message, frozen=True):
    """The objects and workloads that other nodes are told of."""

    workloads: tuple[Workload, ...]
    """Of all nodes, ``node`` filled in."""
    objects: tuple[JsonObject, ...] | None = None
    """The whole configuration; None: as it was told last on this connection."""
    lost: bool = False
    """Some of it was lost, so a missing object may not have been deleted."""
    workloads_at: Splice | None = None
    """Where the workloads belong in those that were told before; None: they are all."""
    objects_at: Splice | None = None
    """The same of the objects, if there are any."""
    more: bool = False
    """The next message belongs to this one."""


class Nodes(Message, frozen=True):
    """A question to a server for nodes that are connected, or were a moment ago."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has joined, as its server sees it."""

    name: str
    connected: bool
    since: UnixSeconds
    """Unix seconds of the last change of ``connected``."""
    workloads: int
    synced: bool = False
    """It has all that the server serves, but for what it refused."""
    rejected: tuple[str, ...] = ()
    kept_out: tuple[str, ...] = ()
    """Workloads that it told of and may not have, each with the reason."""
    conflict: str = ""
    """Another machine has its name and certificate: what became of that one."""


class NodeStatuses(Message, frozen=True):
    nodes: tuple[NodeStatus, ...]
    problems: tuple[str, ...] = ()
    """What nodes cannot be told of, a line each."""


Messages = Follow | Shared | Nodes | NodeStatuses
