"""The messages that meshd's processes exchange, and their codec. No I/O: that is ``channel``.

A frame is four bytes of length, big-endian, and that many bytes of MessagePack. Every message is
a tagged struct; an unknown tag or a wrong field is an error for the connection, not the process.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from meshd.errors import UNDECODABLE, InvalidInputError
from meshd.model.finding import Finding
from meshd.model.membership import (
    Admit,
    Admitted,
    BindNode,
    Certified,
    Certify,
    ControlStatus,
    CreateToken,
    DeleteToken,
    Enlist,
    Follow,
    ListNodes,
    ListTokens,
    MemberStates,
    Nodes,
    NodeStatus,
    NodeStatuses,
    RemoveNode,
    Shared,
    TokenCreated,
    TokenStates,
)
from meshd.model.message import Message
from meshd.model.pod import ListPods, Pods, RunPods
from meshd.model.pool import Pool
from meshd.model.workload import Identity, Observation, Placement, Workload

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes. Larger frames are refused before they are read."""


# ---- answers that any request may get


class Done(Message, frozen=True):
    """It was done; there is nothing to tell."""


class Failed(Message, frozen=True):
    """It was not done. ``reason`` is one line for people; ``code`` is meshctl's exit status."""

    reason: str
    code: int = 1


# ---- mesh → capture, one connection for as long as both live


class Place(Message, frozen=True):
    """The whole of what is wanted. A workload that is not listed is to be let go."""

    placements: tuple[Placement, ...]


class Observed(Message, frozen=True):
    """The whole of what is so, sent back at each change."""

    observations: tuple[Observation, ...]


# ---- mesh → identity, one connection for as long as both live


class Allow(Message, frozen=True):
    """The whole of the identities that workloads of this node have. No other is ever served."""

    identities: tuple[Identity, ...]
    contacts: int = 0
    """Of an agent. Whenever it changes, a certificate that was refused before is worth asking."""


class CertificateState(msgspec.Struct, frozen=True):
    """One served certificate."""

    uri: str
    expires: float
    """Unix seconds."""
    serial: str
    problem: str = ""


class Certificates(Message, frozen=True):
    """What is served now, sent back at each change."""

    certificates: tuple[CertificateState, ...]
    problem: str = ""
    """With keeping them on disk: of no one of them alone."""


# ---- registrars → mesh


class Register(Message, frozen=True):
    """These workloads exist on this node. An equal uid replaces."""

    workloads: tuple[Workload, ...]
    wait: float = 0.0
    """Seconds to wait until all of them are proven; 0: answer as soon as they are recorded."""


class Unregister(Message, frozen=True):
    """These workloads are gone. Answered when nothing of them is left in the kernel."""

    uids: tuple[str, ...]


# ---- meshctl → mesh


class Apply(Message, frozen=True):
    """YAML documents, each source with its text; all or nothing."""

    sources: tuple[tuple[str, str], ...]
    """Pairs of a name for messages (a path, or "-") and the text."""
    namespace: str = "default"
    dry_run: bool = False
    wait: float = 0.0
    """Seconds to wait until every proxy has it; 0: do not wait."""
    delete: bool = False


class DeleteNamed(Message, frozen=True):
    """Delete objects by kind and name."""

    kind: str
    names: tuple[str, ...]
    namespace: str = "default"
    dry_run: bool = False
    wait: float = 0.0


class Change(msgspec.Struct, frozen=True):
    """What was done with one object."""

    kind: str
    namespace: str
    name: str
    result: str
    """created, configured, unchanged or deleted."""


class Changed(Message, frozen=True):
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()


class Get(Message, frozen=True):
    """Stored objects of a kind; an empty name is all, an empty namespace is all namespaces."""

    kind: str
    name: str = ""
    namespace: str = ""


class Objects(Message, frozen=True):
    """API objects as JSON values, ``apiVersion`` and ``kind`` included."""

    objects: tuple[dict[str, Any], ...]


class Rejected(Message, frozen=True):
    """Input that is not valid. Nothing was changed."""

    findings: tuple[Finding, ...]


class Status(Message, frozen=True):
    """Asks for every workload's state."""


class WorkloadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``meshctl status``."""

    workload: str
    namespace: str
    service_account: str
    node: str
    address: str
    netns: str
    proxy: str
    captured: bool
    certificate_expires: str | None
    """RFC 3339, or None before there is one."""
    synced: bool
    proven: bool
    problem: str
    enrolled: bool = True
    """False: it stays outside the mesh, as its labels or its namespace's say; ``problem`` why."""
    unprotected: bool = False
    """It belongs into the mesh, but passes outside it, as ``failure_policy: open`` has it."""
    uid: str = ""
    unit: str = ""
    declared: bool = False
    """Of a service of the host: its systemd unit, and whether a WorkloadEntry says so."""
    cgroup: str = ""
    """Of a service of the host, which has no network namespace: where its processes are."""


class Statuses(Message, frozen=True):
    workloads: tuple[WorkloadStatus, ...]
    proxies: tuple[ProxyStatus, ...] = ()
    roles: tuple[RoleStatus, ...] = ()
    control: ControlStatus | None = None
    nodes: tuple[NodeStatus, ...] = ()
    """Of a server: the nodes that have joined."""
    problems: tuple[str, ...] = ()
    """What is wrong with the configuration, a line each. What was good before is in force."""


class ProxyStatus(msgspec.Struct, frozen=True):
    """A member of a pool as the xDS server sees it."""

    name: str
    connected: bool
    synced: bool
    rejected: tuple[str, ...] = ()
    """Reasons for which it refused resources, newest last."""
    serves: tuple[Pool, ...] = (Pool.TRAFFIC,)


class ProxyConfig(Message, frozen=True):
    """Asks for what the pool really has: listeners, clusters, routes, endpoints or secrets."""

    section: str
    workload: str = ""
    namespace: str = "default"
    proxy: str = ""
    """Name of a member; empty: the first of each pool that answers."""


class Explain(Message, frozen=True):
    """Asks how a request would travel."""

    source: str
    destination: str
    """HOST, HOST:PORT or ADDRESS:PORT."""
    namespace: str = "default"
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()


class Step(msgspec.Struct, frozen=True):
    stage: str
    detail: str


class Explanation(Message, frozen=True):
    stages: tuple[Step, ...]
    verdict: str
    cluster: str
    endpoints: tuple[str, ...]
    identity: str


# ---- meshctl, telemetry, mesh → supervisor


class Children(Message, frozen=True):
    """Asks for the state of the processes."""


class RoleStatus(msgspec.Struct, frozen=True):
    """One process that the supervisor keeps running."""

    name: str
    pid: int
    """0 when it does not run."""
    state: str
    restarts: int
    since: float
    """Unix seconds of its last start."""
    problem: str = ""


class ChildStates(Message, frozen=True):
    children: tuple[RoleStatus, ...]


class RestartRoles(Message, frozen=True):
    """Begin these anew, with the settings as they are on disk now. Traffic does not notice."""

    names: tuple[str, ...]


class ReloadNames(Message, frozen=True):
    """The resolver's tables are other ones now, for the ``version``-th time."""

    version: int


class ReplacePool(Message, frozen=True):
    """Replace each proxy by a new process, one after the other in each pool, losing nothing."""


_HEADER: Final = struct.Struct(">I")
HEADER_SIZE: Final = _HEADER.size

AnyMessage = (
    Done
    | Failed
    | Place
    | Observed
    | Allow
    | Certificates
    | CreateToken
    | TokenCreated
    | ListTokens
    | TokenStates
    | DeleteToken
    | Enlist
    | Admit
    | Admitted
    | Certify
    | Certified
    | ListNodes
    | MemberStates
    | RemoveNode
    | BindNode
    | Follow
    | Shared
    | Nodes
    | NodeStatuses
    | Register
    | Unregister
    | Apply
    | DeleteNamed
    | Changed
    | Get
    | Objects
    | Rejected
    | Status
    | Statuses
    | ProxyConfig
    | Explain
    | Explanation
    | Children
    | ChildStates
    | RestartRoles
    | ReloadNames
    | ReplacePool
    | RunPods
    | ListPods
    | Pods
)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """Bytes that follow the header. Raises InvalidInputError when they are too many."""
    (size,) = _HEADER.unpack(header)
    if size > MAX_FRAME:
        raise InvalidInputError(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
    return size


def decode(body: bytes) -> AnyMessage:
    """Raises InvalidInputError when the bytes are not a message that we know."""
    try:
        return _decoder.decode(body)
    except UNDECODABLE as error:
        raise InvalidInputError(f"not a message of this version of meshd: {error}") from None
