"""A workload: what runs in one network namespace under one identity, and its way into the mesh."""

from __future__ import annotations

import enum

import msgspec


class NamedPort(msgspec.Struct, frozen=True):
    """A port that the workload declares, so that a Service may target it by name."""

    name: str
    number: int


class HostService(msgspec.Struct, frozen=True, kw_only=True):
    """How a workload that lives in the host's own network namespace is told from its neighbours
    there. It has no namespace of its own, so that ``Workload.netns`` is empty, and its traffic
    goes through ports of its own. Inbound, ``Workload.ports`` are captured and no other.
    """

    cgroup: str
    """Path below the root of the cgroup2 hierarchy, without a leading slash. All processes below
    it are the workload."""
    unit: str = ""
    """The systemd unit that runs there, if one does."""
    outbound_port: int = 0
    """TCP: what it sends; UDP: its DNS queries. 0: to be given by the mesh role."""
    inbound_port: int = 0
    """0: to be given by the mesh role."""
    ipv6: bool = True
    """Whether the host speaks IPv6."""
    declared: bool = False
    """A WorkloadEntry says so, and it stays for as long as that does."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One pod, container or service. Registered by whoever runs it (testbed, enrolment, CNI)."""

    uid: str
    """Unique on the node and safe as a file name; by convention ``namespace.name``."""
    name: str
    namespace: str
    netns: str
    """Path of its network namespace as the registrar knows it."""
    service_account: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    addresses: tuple[str, ...] = ()
    """Its own IP addresses, IPv4 first."""
    ports: tuple[NamedPort, ...] = ()
    node: str = ""
    locality: str = ""
    """``region/zone/subzone``, unless its labels say it; empty: its node's."""
    ready: bool = True
    """Whether it may receive traffic (its readiness probe passes)."""
    enrolled: bool = True
    """Whether it joins the mesh where neither its namespace's labels nor its own say anything."""
    host: HostService | None = None
    """Set for a service of the host itself."""


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


class Observation(msgspec.Struct, frozen=True):
    """What is so for one workload: the capture role tells it."""

    uid: str
    stage: Stage
    proven: bool = False
    """A probe from inside the namespace has reached the proxy, and the last one did too."""
    problem: str = ""
    """One line, empty when all is well."""
    pinned: str = ""
    """Path at which the namespace is held, and at which the proxies are to open it."""
    unprotected: bool = False
    """It is to be captured, but its traffic passes outside the mesh: the policy says fail open."""
