"""What meshd's processes tell each other about nodes: tokens, certificates, who runs what where."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.model.bounds import Bounds
from meshd.model.message import Message
from meshd.model.workload import Workload

# ---- meshctl, server → identity (of a server)


class CreateToken(Message, frozen=True):
    """Asks for a token with which another node can join."""

    ttl: float
    """Seconds."""
    node: str = ""
    """The only node that may use it; empty: any."""
    uses: int = 1
    bounds: Bounds = ()
    """Of whoever joins with it."""


class TokenState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token. Times in Unix seconds."""

    id: str
    node: str
    created: float
    expires: float
    uses: int
    used_by: tuple[str, ...]
    state: str
    """valid, used or expired."""
    bounds: Bounds = ()


class TokenCreated(Message, frozen=True):
    """``token`` is told this once."""

    token: str
    kept: TokenState


class ListTokens(Message, frozen=True):
    """Asks for all tokens that are kept."""


class TokenStates(Message, frozen=True):
    tokens: tuple[TokenState, ...]


class DeleteToken(Message, frozen=True):
    id: str


class Enlist(Message, frozen=True):
    """A node wants to join: its certificate for a token, which is used up by that."""

    token: str
    node: str
    csr: bytes
    """PEM."""


class Peer(msgspec.Struct, frozen=True):
    """A node at the other end of a connection, as its certificate says."""

    node: str
    serial: str
    """Hexadecimal."""
    expires: float
    """Unix seconds."""


class Admit(Message, frozen=True):
    """Asks whether a node belongs to the mesh."""

    peer: Peer


class Admitted(Message, frozen=True):
    bounds: Bounds


class Certify(Message, frozen=True):
    """Asks for a certificate of what the request names. Only the server role may ask."""

    csr: bytes
    """PEM."""
    peer: Peer | None = None
    """Who wants it; None: the server role itself."""
    lifetime: float = 0.0
    """Seconds; 0, or more than is given: as long as it is given for."""


class Certified(Message, frozen=True):
    chain: bytes
    """PEM, the leaf first, without the root."""
    roots: bytes
    """PEM of all certificates to verify others by."""
    expires: float
    """Unix seconds."""


# ---- server ↔ mesh, one connection for as long as both live


class Follow(Message, frozen=True):
    """Asks for what other nodes are to know, and again at each change."""

    workloads: tuple[Workload, ...] | None = None
    """All workloads of other nodes, from now on; None: as they were."""


class Shared(Message, frozen=True):
    """What other nodes are to know."""

    workloads: tuple[Workload, ...]
    """Of all nodes, ``node`` filled in."""
    objects: tuple[dict[str, Any], ...] | None = None
    """The whole configuration; None: as it was told last on this connection."""


class Nodes(Message, frozen=True):
    """Asks a server which nodes are connected, or were a moment ago."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has joined, as its server sees it."""

    name: str
    connected: bool
    since: float
    """Unix seconds of the last change of ``connected``."""
    workloads: int
    synced: bool = False
    """It has all that the server serves, but for what it refused."""
    rejected: tuple[str, ...] = ()
    kept_out: tuple[str, ...] = ()
    """Workloads that it told of and may not have, each with the reason."""


class NodeStatuses(Message, frozen=True):
    nodes: tuple[NodeStatus, ...]


# ---- meshctl → server → identity: who belongs to the mesh


class ListNodes(Message, frozen=True):
    """Asks which nodes have joined."""


class MemberState(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has joined. Times in Unix seconds."""

    name: str
    bounds: Bounds
    joined: float
    expires: float
    """When its certificate ends."""


class MemberStates(Message, frozen=True):
    nodes: tuple[MemberState, ...]


class RemoveNode(Message, frozen=True):
    """Its certificates count for nothing from now on."""

    name: str


class BindNode(Message, frozen=True):
    name: str
    bounds: Bounds
    """All of them, from now on; none: any."""


class ControlStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An agent and its server."""

    server: str
    connected: bool
    since: float
    """Unix seconds: connected, or without the server, since then; 0: never connected yet."""
    problem: str = ""
    rejected: tuple[str, ...] = ()
    """What the server sent and could not be used: the version before stays in force."""
    kept_out: tuple[str, ...] = ()
    """Why the server does not take workloads of this node."""
    ends_first: str = ""
    """URI of the certificate that ends first, the node's own among them."""
    ends_at: str | None = None
    """RFC 3339."""
