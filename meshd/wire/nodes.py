"""meshctl → server → identity: the members of the mesh."""

from __future__ import annotations

import msgspec

from meshd.api.base import UnixSeconds
from meshd.model.bounds import Bounds
from meshd.wire.message import Message


class ListNodes(Message, frozen=True):
    """A question for the nodes that have joined."""


class MemberState(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has joined. Times in Unix seconds."""

    name: str
    bounds: Bounds
    joined: UnixSeconds
    expires: UnixSeconds
    """When its certificate ends."""


class MemberStates(Message, frozen=True):
    nodes: tuple[MemberState, ...]


class RemoveNode(Message, frozen=True):
    """Remove a node: its certificates are rejected from now on."""

    name: str


class BindNode(Message, frozen=True):
    name: str
    bounds: Bounds
    """All of them, from now on; none: any."""


Messages = ListNodes | MemberStates | RemoveNode | BindNode
