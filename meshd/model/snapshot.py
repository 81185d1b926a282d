"""The compiler's whole input at one moment. Frozen: a change makes a new snapshot."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.gateway.types import SELECTION, GatewaySelection
from meshd.api.kubernetes.types import Secret
from meshd.api.networking import DestinationRule, Gateway, VirtualService
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.model.closed_workload import ClosedAddress
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.service import ServiceRecord
from meshd.model.short_way import ShortWay
from meshd.model.workload import Workload

UNLIMITED: Final = 2**32 - 1


class MeshOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What shapes Envoy's configuration for the whole mesh: mostly a part of the settings."""

    node: str = ""
    locality: str = ""
    """``region/zone/subzone`` of this node."""

    trust_domain: str = "cluster.local"
    domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    outbound_policy: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    gateway_selection: GatewaySelection = SELECTION
    protocol_detection_timeout: float = 0.0
    """Seconds to wait for a client's first bytes where HTTP is told from other protocols by them;
    0: for as long as it takes."""
    mutual_tls_timeout: float = 2.0
    """Seconds in which a client of the mesh has to begin its handshake, or else it is taken for a
    plain one and its connection is lost."""
    accept_http_10: bool = False
    connect_timeout: float = 10.0
    """Seconds."""
    service_cidr: str = ""
    """Where virtual addresses of services are taken from; nobody else answers there. Empty: it is
    not known."""
    dns_port: int = 15053
    """Port on the host's loopback interface where the resolver answers."""
    captures_dns: bool = True
    """Workloads' queries go to the resolver."""
    ipv6: bool = True
    """Whether the kernel speaks IPv6 at all."""
    access_log: Literal["off", "errors", "all"] = "errors"
    proxies: int = 1
    """Members of the pool that share a workload's connections."""
    workload_connections: int = 0
    """How many of them each member takes that one workload opens; 0: any number."""
    connections_per_second: int = 0
    """How many new ones a workload may open; it may be sent twice as many. 0: any number."""
    upstream_connections: int = UNLIMITED
    """How many each of them opens to one cluster."""
    direct_requests: bool = False
    """Workloads' own listeners route requests, where all that is sent to a port is HTTP."""
    short_way: bool = True
    """Connections between workloads of this node may stay inside a proxy, without TLS."""
    hbone: bool = False
    """Connections between nodes may share tunnels."""
    providers: tuple[AuthorizationProvider, ...] = ()
    """Whom AuthorizationPolicies may have asked."""
    closed_addresses: tuple[ClosedAddress, ...] = ()
    """Clients of the mesh do not reach them on any port, whatever ``outbound_policy`` says."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of the mesh."""

    revision: int = 0
    options: MeshOptions = MeshOptions()
    services: dict[str, ServiceRecord] = {}
    """By host. What further namespaces declare under the same host is there as ``HOST@NAMESPACE``.
    First those that win where a client sees several."""
    virtual_services: tuple[VirtualService, ...] = ()
    """Oldest first, then by namespace and name: the order in which routes are merged."""
    destination_rules: tuple[DestinationRule, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    gateway_accounts: tuple[tuple[str, str], ...] = ()
    """Namespace and service account of each workload of the mesh that a Gateway selects, whichever
    node it runs on."""
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    token_keys: dict[str, str] = {}
    """Keys of issuers that were fetched, as JSON Web Key Sets, by the URL of each."""
    secrets: dict[str, Secret] = {}
    """TLS secrets by ``namespace/name``."""
    resolvers: dict[str, str] = {}
    """Addresses of resolvers by namespace, of the namespaces that have one to themselves."""
    workloads: dict[str, Workload] = {}
    """Workloads of this node that are to be served, by uid. What is compiled takes their ``netns``
    to be the path at which it is pinned."""
    short_way: ShortWay = ShortWay()
    """Who takes the short way, where the options allow it."""
