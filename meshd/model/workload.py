"""A workload: what runs in one network namespace under one identity, and its way into the mesh."""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Mapping
from typing import Annotated

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


@functools.lru_cache(maxsize=65536)
def address_problem(text: str) -> str:
    """Why nothing can be sent to that address on behalf of a workload; empty when it is one."""
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
    """How a workload that lives in the host's own network namespace is told from its neighbours
    there. It has no namespace of its own, so that ``Workload.netns`` is empty, and its traffic
    goes through ports of its own. Inbound, ``Workload.ports`` are captured and no other.
    """

    cgroup: Path
    """Path below the root of the cgroup2 hierarchy, without a leading slash. All processes below
    it are the workload."""
    unit: Path = ""
    """The systemd unit that runs there, if one does."""
    outbound_port: Port = 0
    """TCP: what it sends; UDP: its DNS queries. 0: to be given by the mesh role."""
    inbound_port: Port = 0
    """0: to be given by the mesh role."""
    address_asked: bool | None = None
    """Whether somebody has asked for ``Workload.addresses``; without any it is reached by those of
    the host. None: an older meshd recorded what it saw, too, and did not say which."""
    declared: bool = False
    """A WorkloadEntry says so, and it stays for as long as that does."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One pod, container or service. Registered by whoever runs it (testbed, enrolment, CNI).

    Raises ValueError for an address that no workload has, which decoding reports as its own error.
    """

    uid: Uid
    """Unique on the node and safe as a file name; by convention ``namespace.name``."""
    name: Name
    namespace: Label
    netns: Path
    """Path of its network namespace as the registrar knows it."""
    hostname: Hostname = ""
    """What it calls itself, if not by its name."""
    netns_cookie: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which namespace that was when it was registered, for another may be there later. 0: the one
    that the path leads to first."""
    service_account: Name = "default"
    labels: Labels = {}
    annotations: Annotations = {}
    addresses: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Its own IP addresses, IPv4 first. None, as registered: those that it is seen to have."""
    ports: Annotated[tuple[NamedPort, ...], msgspec.Meta(max_length=256)] = ()
    node: NodeName = ""
    locality: Locality = ""
    """``region/zone/subzone``, unless its labels say it; empty: its node's."""
    ready: bool = True
    """Whether it may receive traffic (its readiness probe passes)."""
    enrolled: bool = True
    """Whether it joins the mesh where neither its namespace's labels nor its own say anything."""
    host: HostService | None = None
    """Set for a service of the host itself."""

    def __post_init__(self) -> None:
        for address in self.addresses:
            if problem := address_problem(address):
                raise ValueError(problem)


class Identity(msgspec.Struct, frozen=True, order=True):
    """A SPIFFE identity, Istio's form: https://istio.io/latest/docs/concepts/security/"""

    trust_domain: str
    namespace: str
    service_account: str

    @property
    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @property
    def client_secret(self) -> str:
        """The secret whose certificate it presents as a client; as a server it is ``uri``.

        The same under another name, for Envoy 1.40 keeps accounts of their own of secrets that
        listeners wait for and of those fetched on demand, but tells of one that is in both only the
        first: https://github.com/envoyproxy/envoy/issues/47309.
        """
        return f"{self.uri}#client"


class Stage(enum.StrEnum):
    """How far a workload's namespace is prepared. Each stage includes the ones before it."""

    ABSENT = "absent"
    """Nothing of ours is there."""
    PINNED = "pinned"
    """The namespace is held by a bind mount, so listeners can be opened in it."""
    CAPTURED = "captured"
    """Its traffic is redirected to the proxy."""


class Placement(msgspec.Struct, frozen=True):
    """What is wanted of one workload: the mesh role decides it, the capture role makes it so."""

    workload: Workload
    stage: Stage
    bypass_inbound_ports: tuple[int, ...] = ()
    """Ports on which the proxy itself listens in the namespace (a gateway's): never redirected."""


class Interruptions(msgspec.Struct, frozen=True):
    """How often, and for how long, rules that somebody else had changed took a workload out of the
    mesh, since the capture role began."""

    seconds: float = 0
    """All of them together, from the change to its repair."""
    counts: Mapping[str, int] = {}
    """By the program that made the change; empty where the kernel does not tell."""
    last: str = ""
    """One line about the last one: when, how long, by whom and what."""


class DroppedConnections(msgspec.Struct, frozen=True):
    """New connections above the workload's limit, whose first packets the kernel has dropped since
    the capture role began."""

    opened: int = 0
    """By the workload."""
    received: int = 0
    """Sent to it by others."""
    limited: str = ""
    """One line, as long as it goes on: since when, and how to raise the limit."""


class Observation(msgspec.Struct, frozen=True):
    """What is so for one workload: the capture role tells it."""

    uid: str
    stage: Stage
    proven: bool = False
    """A probe from inside the namespace has reached the proxy, and the last one did too; and what
    it is sent has not been seen to go past the proxy."""
    problem: str = ""
    """One line, empty when all is well."""
    pinned: str = ""
    """Path at which the namespace is held, and at which the proxies are to open it."""
    unprotected: bool = False
    """It is to be captured, but its traffic passes outside the mesh: the policy says fail open."""
    addresses: tuple[str, ...] = ()
    """By which its namespace is reached, where nobody else has said it."""
    interruptions: Interruptions = Interruptions()
    unseen: str = ""
    """Why no probe has shown that what it is sent reaches the proxy; empty: one has."""
    dropped: DroppedConnections = DroppedConnections()
