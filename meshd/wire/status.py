"""meshctl, telemetry → mesh: how workloads and proxies are."""

from __future__ import annotations

import msgspec

from meshd.api.base import UnixSeconds
from meshd.model.pool import Pool
from meshd.model.workload import DroppedConnections, Interruptions
from meshd.wire.children import RoleStatus
from meshd.wire.message import Message
from meshd.wire.sharing import NodeStatus


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
    interruptions: Interruptions = Interruptions()
    unseen: str = ""
    """Why it is proven for what it sends only, and not for what it is sent."""
    dropped: DroppedConnections = DroppedConnections()


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
    """It has all that is for it, and has refused nothing of that."""
    rejected: tuple[str, ...] = ()
    """Reasons for which it refused resources, newest last."""
    pool: Pool = Pool.TRAFFIC


class ControlStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An agent and its server."""

    server: str
    connected: bool
    since: UnixSeconds
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


Messages = Status | Statuses
