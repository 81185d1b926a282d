"""A service as the mesh sees it, declared by a Kubernetes Service or a ServiceEntry."""

from __future__ import annotations

import enum
import functools
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from meshd.api.base import exported
from meshd.api.protocol import Protocol
from meshd.model.short_way import Inside

TLS_MODE: Final = "security.istio.io/tlsMode"
"""Label that says whether mutual TLS of the mesh is spoken to a workload."""
MUTUAL_TLS: Final = "istio"
"""Its value where it is."""


class Resolution(enum.StrEnum):
    """The source of a service's endpoints."""

    STATIC = "static"
    """They are known addresses: of workloads, or listed."""
    DNS = "dns"
    """Each endpoint is a name that the proxy resolves."""
    DNS_ROUND_ROBIN = "dns_round_robin"
    """As DNS, but there is one name, and only its first address is used for a new connection."""
    DYNAMIC_DNS = "dynamic_dns"
    """The name that a request has is resolved for it (wildcard hosts)."""
    NONE = "none"
    """The client's own destination address is used (also headless services)."""


class Preference(enum.StrEnum):
    """The endpoints that a service's clients prefer while there are some."""

    ANY = ""
    SAME_ZONE = "zone"
    SAME_NODE = "node"


class Port(msgspec.Struct, frozen=True):
    """A port of a service."""

    number: int
    name: str
    protocol: Protocol


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One place that serves a service's port."""

    address: str
    """IP address, or a DNS name where the service's resolution is DNS."""
    port: int
    service_port: int
    labels: dict[str, str] = {}
    service_account: str = ""
    namespace: str = ""
    workload: str = ""
    """uid of the workload behind it, empty outside the mesh."""
    mutual_tls: bool = False
    """It accepts Istio's mutual TLS: it is in the mesh."""
    locality: str = ""
    """``region/zone/subzone``."""
    name: str = ""
    """By which a headless service's clients may ask for this one of its endpoints."""
    node: str = ""
    """Name of the node that it runs on, where that is known."""
    weight: int = 1
    ready: bool = True
    """It may be sent traffic. One that is not is known all the same: it will be."""
    hbone: bool = False
    """Its node, another one, says that it can be reached by a tunnel."""
    inside: Inside | None = None
    """Where it is reached by the short way; None: over the network only."""


Place: TypeAlias = tuple[str, str]
"""A service's host, and the namespace that tells it from others of this host, if there are any."""


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A host name with its addresses, its ports, and its endpoints."""

    host: str
    """``name.namespace.svc.DOMAIN``, or a ServiceEntry's host (maybe ``*.example.com``)."""
    namespace: str
    name: str = ""
    """The Kubernetes name; empty for a ServiceEntry."""
    entry: str = ""
    """The name of the ServiceEntry; empty for a Service of Kubernetes."""
    addresses: tuple[str, ...] = ()
    """Virtual addresses that clients connect to; CIDRs are possible for a ServiceEntry."""
    ports: tuple[Port, ...] = ()
    resolution: Resolution = Resolution.STATIC
    headless: bool = False
    external: bool = False
    """MESH_EXTERNAL: no mutual TLS of the mesh is ever spoken to it."""
    prefers: Preference = Preference.ANY
    sticky: bool = False
    """Clients of one address are given one endpoint, unless a rule says otherwise."""
    tunnels: bool = False
    """It says that its connections may be carried by tunnels."""
    export_to: tuple[str, ...] = ()
    """Namespaces that see it; empty or ``*`` is all, ``.`` its own."""
    subject_alt_names: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    closed: bool = False
    """Nobody reaches it: what declares it is not in force, or cannot be compiled."""
    near: bool = False
    """Some endpoint is reached by the short way."""
    apart: str = ""
    """Its namespace, where the plain name of the host stands for another namespace's service."""

    @property
    def place(self) -> Place:
        """Return what tells it from all other services of a mesh."""
        return self.host, self.apart

    @property
    def may_be_near(self) -> bool:
        """Return whether endpoints that are workloads are reached as workloads of the mesh are:
        those that are outside of it by declaration are sent plaintext."""
        return not self.external and self.resolution is Resolution.STATIC

    @functools.cached_property
    def endpoints_by_port(self) -> dict[int, tuple[Endpoint, ...]]:
        """Endpoints by the number of the service's port."""
        found: dict[int, list[Endpoint]] = defaultdict(list)
        for endpoint in self.endpoints:
            found[endpoint.service_port].append(endpoint)
        return {number: tuple(places) for number, places in found.items()}

    @functools.cached_property
    def endpoint_addresses(self) -> tuple[str, ...]:
        """Return each address once, in order."""
        return tuple(sorted({endpoint.address for endpoint in self.endpoints}))

    @functools.cached_property
    def accounts(self) -> frozenset[tuple[str, str, bool]]:
        """Namespace and service account of endpoints, and whether those take mutual TLS."""
        return frozenset(
            (place.namespace, place.service_account, place.mutual_tls) for place in self.endpoints
        )

    @functools.cached_property
    def http_ports(self) -> tuple[int, ...]:
        """Return the ports on which its clients may speak HTTP."""
        return tuple(
            port
            for port, protocols in self.protocols.items()
            if any(one.is_for("http") for one in protocols)
        )

    @functools.cached_property
    def routed_ports(self) -> tuple[int, ...]:
        """Return the numbers of its ports but for those of UDP."""
        routed = (port.number for port in self.ports if port.protocol is not Protocol.UDP)
        return tuple(sorted(set(routed)))

    @functools.cached_property
    def protocols(self) -> dict[int, frozenset[Protocol]]:
        """Return the protocol of each port, by its number."""
        found: dict[int, set[Protocol]] = defaultdict(set)
        for port in self.ports:
            found[port.number].add(port.protocol)
        return {number: frozenset(spoken) for number, spoken in found.items()}


def seen_from(namespace: str, records: Iterable[ServiceRecord]) -> dict[str, ServiceRecord]:
    """Return the record of each host for clients of a namespace: their own, else the first that
    they see.

    The empty namespace sees what all see.
    """
    found: dict[str, ServiceRecord] = {}
    for record in records:
        if not exported(record.export_to, record.namespace, namespace):
            continue
        known = found.get(record.host)
        if known is None or (record.namespace == namespace and known.namespace != namespace):
            found[record.host] = record
    return found
