"""A workload, which runs in one network namespace under one identity, and its way into the mesh."""

from __future__ import annotations

import enum
import functools
import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from meshd.api.values import (
    Annotations,
    Hostname,
    Label,
    Labels,
    Locality,
    Name,
    NodeName,
    Path,
    Port,
    PortName,
    PortNumber,
    Uid,
)

LONGEST_PINNED: Final = 237
"""Characters of a uid; the file that pins its namespace has a name of 18 more, and at most 255."""
_BYTE: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_FIRST_BYTE: Final = "(?:22[0-3]|2[01][0-9]|1[3-9][0-9]|12[0-689]|1[01][0-9]|[1-9][0-9]?)"
_PLAIN: Final = re.compile(rf"{_FIRST_BYTE}(?:\.{_BYTE}){{3}}")
"""What most addresses of workloads look like: IPv4, not unspecified, loopback or multicast."""


def address_problem(text: str) -> str:
    """Return why a text is no address of a workload; empty if it can be one."""
    # Each message of a large mesh has more addresses than a cache holds.
    return "" if _PLAIN.fullmatch(text) else _address_problem(text)


@functools.lru_cache(maxsize=65536)
def _address_problem(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is not an IP address"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or mapped):
        return f"{text!r} is not the address of one workload; write it without a scope, as IPv4"
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        return f"{text!r} is a loopback, multicast or unspecified address, which no workload has"
    return ""


class NamedPort(msgspec.Struct, frozen=True):
    """A port that the workload declares, so that a Service may target it by name."""

    name: PortName
    number: PortNumber


class HostService(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a workload that tells a service of the host from its neighbours.

    A service of the host has no network namespace of its own, so that ``Workload.netns`` is empty,
    and its traffic goes through ports of its own. Of its incoming connections, those to
    ``Workload.ports`` are captured and no others.
    """

    cgroup: Path
    """The path below the root of the cgroup2 hierarchy, without a leading slash. All processes
    below this path are the workload."""
    unit: Path = ""
    """The systemd unit of the cgroup, if it belongs to one."""
    outbound_port: Port = 0
    """The proxies' port for the workload's outgoing TCP connections, and its DNS queries over UDP.
    0: the mesh role is to choose it."""
    inbound_port: Port = 0
    """The proxies' port for connections to the workload. 0: the mesh role is to choose it."""
    address_asked: bool | None = None
    """Whether a user has asked for ``Workload.addresses``; without any, the workload is reached at
    the addresses of the host. None: unknown, since an older meshd, which recorded addresses that it
    saw, too, has written the record."""
    declared: bool = False
    """Whether a WorkloadEntry declares the workload, which exists as long as the WorkloadEntry."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One pod, container or service of the host.

    It is registered by what runs it: the testbed, an enrollment, CNI. Raises ValueError for an
    address that no workload can have, which decoding reports as an error of its own.
    """

    uid: Uid
    """Unique on the node and safe as a file name; by convention ``namespace.name``."""
    name: Name
    namespace: Label
    netns: Path
    """The path of the workload's network namespace, as the registrar knows it."""
    hostname: Hostname = ""
    """The host name that the workload has, if it differs from its name."""
    netns_cookie: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The kernel's cookie of the namespace at the time of registration, since the path may lead to
    another namespace later. 0: unknown; the first namespace that the path leads to is taken."""
    service_account: Name = "default"
    labels: Labels = {}
    annotations: Annotations = {}
    addresses: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """The workload's own IP addresses, IPv4 first. Empty at registration: those that are seen in
    its namespace."""
    ports: Annotated[tuple[NamedPort, ...], msgspec.Meta(max_length=256)] = ()
    node: NodeName = ""
    locality: Locality = ""
    """``region/zone/subzone``, unless labels of the workload tell it; empty: that of the node."""
    protocols: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=32)], ...], msgspec.Meta(max_length=16)
    ] = ()
    """What its proxies are spoken to in besides mutual TLS, as its node tells other nodes. Names
    that are not known mean nothing."""
    ready: bool = True
    """Whether the workload may receive traffic (its readiness probe passes)."""
    enrolled: bool = True
    """Whether the workload joins the mesh unless its labels or those of its namespace decide."""
    host: HostService | None = None
    """Set for a service of the host only."""

    def __post_init__(self) -> None:
        for address in self.addresses:
            if problem := address_problem(address):
                raise ValueError(problem)


class Identity(msgspec.Struct, frozen=True, order=True):
    """A SPIFFE identity in Istio's form: https://istio.io/latest/docs/concepts/security/"""

    trust_domain: str
    namespace: str
    service_account: str

    @property
    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @property
    def client_secret(self) -> str:
        """Return the name of the client's secret; the name of the server's secret is ``uri``.

        Both secrets are the same, under two names: Envoy 1.40 keeps secrets that listeners wait for
        apart from those that are fetched on demand, but updates only the first of the two for a
        secret that is in both: https://github.com/envoyproxy/envoy/issues/47309.
        """
        return f"{self.uri}#client"


class Stage(enum.StrEnum):
    """How far a workload's namespace is prepared. Each stage includes the stages before it."""

    ABSENT = "absent"
    """Nothing of meshd is in the namespace."""
    PINNED = "pinned"
    """A bind mount keeps the namespace, so listeners can be opened in it."""
    CAPTURED = "captured"
    """The traffic of the namespace is redirected to the proxy."""


class Placement(msgspec.Struct, frozen=True):
    """What is wanted of one workload: decided by the mesh role, carried out by the capture role."""

    workload: Workload
    stage: Stage
    bypass_inbound_ports: tuple[int, ...] = ()
    """Ports on which the proxy itself listens in the namespace (a gateway's); never redirected."""


class Interruptions(msgspec.Struct, frozen=True):
    """How often, and for how long, other programs' changes of rules took a workload out of the mesh
    since the capture role started."""

    seconds: float = 0
    """The sum of all interruptions, each from the change to its repair."""
    counts: Mapping[str, int] = {}
    """Interruptions by the program that changed the rules; empty where the kernel does not tell."""
    last: str = ""
    """One line about the last interruption: when, how long, by which program and what."""


class DroppedConnections(msgspec.Struct, frozen=True):
    """New connections above the workload's limit, whose first packets the kernel has dropped since
    the capture role started."""

    opened: int = 0
    """Connections that the workload opened."""
    received: int = 0
    """Connections to the workload."""
    limited: str = ""
    """One line while connections are dropped: since when, and how to raise the limit."""
    uncounted: str = ""
    """Why the counts are unknown; empty: they are known."""


class Observation(msgspec.Struct, frozen=True):
    """The state of one workload, as the capture role sees it."""

    uid: str
    stage: Stage
    proven: bool = False
    """Whether a probe from inside the namespace has reached the proxy, the last probe did so too,
    and traffic to the workload has not been seen to bypass the proxy."""
    problem: str = ""
    """One line; empty: there is no problem."""
    pinned: str = ""
    """The path of the pin, at which the proxies are to open the namespace."""
    unprotected: bool = False
    """Whether the workload should be captured, but bypasses the mesh because of
    ``failure_policy: open``."""
    addresses: tuple[str, ...] = ()
    """The addresses of the namespace, unless the registrar has told the workload's addresses."""
    interruptions: Interruptions = Interruptions()
    unseen: str = ""
    """Why no probe has shown that traffic to the workload reaches the proxy; empty: one has."""
    dropped: DroppedConnections = DroppedConnections()
    slower: str = ""
    """Why replies of the application are routed twice, which takes time; empty: they are not."""


def shown(uid: str) -> str:
    """Return a workload as users know it, ``NAMESPACE/NAME``, from its uid."""
    namespace, dot, name = uid.partition(".")
    return f"{namespace}/{name}" if dot else uid
