"""meshctl, telemetry → mesh: the state of workloads, proxies, roles and nodes."""

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
    """The time in RFC 3339; None while there is no certificate."""
    synced: bool
    proven: bool
    problem: str
    enrolled: bool = True
    """False if labels of the workload or namespace keep it out of the mesh; see ``problem``."""
    unprotected: bool = False
    """Whether the workload's traffic bypasses the mesh because of ``failure_policy: open``."""
    uid: str = ""
    unit: str = ""
    declared: bool = False
    """Whether a WorkloadEntry declares the workload, a service of the host with this unit."""
    cgroup: str = ""
    """The cgroup of a service of the host, which has no network namespace of its own."""
    interruptions: Interruptions = Interruptions()
    unseen: str = ""
    """Why the workload is proven for outbound traffic only, and not for inbound."""
    dropped: DroppedConnections = DroppedConnections()
    hbone: str = ""
    """``open`` if other nodes are told to reach the workload by tunnels, or else why they are not;
    empty where the setting ``proxy.hbone`` is off."""
    short_way: str = ""
    """Whether other workloads of the node call the workload by the short way: ``open``, or why
    not; empty where the setting ``proxy.short_way`` is off."""
    slower: str = ""
    """Why replies of the application are routed twice, which takes time; empty: they are not."""


class Statuses(Message, frozen=True):
    workloads: tuple[WorkloadStatus, ...]
    proxies: tuple[ProxyStatus, ...] = ()
    roles: tuple[RoleStatus, ...] = ()
    control: ControlStatus | None = None
    nodes: tuple[NodeStatus, ...] = ()
    """The nodes that have joined this server."""
    problems: tuple[str, ...] = ()
    """Problems of the configuration, a line each. The last good configuration is in force."""
    enrollments: tuple[EnrollmentStatus, ...] = ()
    """The enrollments that are not finished."""
    capacity: str = ""
    """The size and the capacity of the pool for traffic, as text."""


class EnrollmentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An enrollment, or its end, that is not finished."""

    what: str
    """A description, such as ``enrollment of web.service``."""
    uid: str
    unit: str = ""
    cgroup: str = ""
    netns: str = ""
    doing: str = ""
    problem: str = ""
    since: UnixSeconds


class ProxyStatus(msgspec.Struct, frozen=True):
    """A member of a pool as the xDS server sees it."""

    name: str
    connected: bool
    synced: bool
    """Whether the proxy has all its resources, and has rejected none of them."""
    rejected: tuple[str, ...] = ()
    """The reasons why the proxy rejected resources, newest last."""
    pool: Pool = Pool.TRAFFIC


class ControlStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The connection of an agent to its server."""

    server: str
    connected: bool
    since: UnixSeconds
    """When the agent connected or lost the server, in Unix seconds; 0: never connected yet."""
    problem: str = ""
    rejected: tuple[str, ...] = ()
    """Resources from the server that could not be used; their last good versions stay in force."""
    kept_out: tuple[str, ...] = ()
    """Why the server does not accept workloads of this node."""
    ends_first: str = ""
    """The URI of the certificate that expires first, the node's own included."""
    ends_at: str | None = None
    """When that certificate expires, in RFC 3339."""


Messages = Status | Statuses
