"""Upstreams: where connections go, to which endpoints, and how they are made and shared.

Durations are in seconds. Settings are apart from names, because most services have the same ones.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from meshd.compile.names import HBONE, LOCAL, InboundCluster, OutboundCluster
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.tls import PLAIN, TlsPlan
from meshd.model.hbone import Tunnel
from meshd.model.short_way import Inside, Requests
from meshd.model.snapshot import UNLIMITED

UpstreamName = OutboundCluster | InboundCluster | str
"""A service's port, an application's port, or the name of one that has neither."""


class Place(msgspec.Struct, frozen=True):
    """An endpoint as one upstream's clients see it."""

    address: str
    """IP address, or a DNS name where the proxy looks it up."""
    port: int
    weight: int = 1
    mutual_tls: bool = False
    workload: str = ""
    """uid of the workload behind it; empty outside the mesh."""
    inside: Inside | None = None
    """Where it is reached by the short way; None: over the network only."""
    tunnel: Tunnel | None = None
    """How it is reached by a tunnel; None: each connection is one to it."""


class Group(msgspec.Struct, frozen=True):
    """Endpoints that are equally near."""

    places: tuple[Place, ...]
    locality: str = ""
    """``region/zone/subzone``, where endpoints are in an order by distance."""
    priority: int = 0
    """0 is served first, the next when too few of those before are healthy."""
    weight: int = 0
    """Against other groups of the same priority; 0: each endpoint counts for itself."""


class Order(msgspec.Struct, frozen=True):
    """How endpoints are ordered for the clients of one place."""

    locality: str
    """Of the clients; empty where it is not known."""
    distributed: bool = False
    """Each locality has its share, rather than the next one what nearer ones cannot serve."""
    labels: tuple[str, ...] = ()
    """Endpoints that have the client's values of these come first, the first label foremost."""


class Assignment(msgspec.Struct, frozen=True):
    """The endpoints of an upstream."""

    name: str
    groups: tuple[Group, ...] = ()
    """One, or none without endpoints, where there is no order."""
    order: Order | None = None
    """By which groups are nearer or farther."""
    resting: tuple[Place, ...] = ()
    """Endpoints that are not ready: they are known, and sent nothing."""
    requests: Requests = ""
    """What their upstream sends by the short way."""

    @property
    def listeners(self) -> tuple[str, ...]:
        """Return the names of the internal listeners to which endpoints lead."""
        places = [place for group in self.groups for place in group.places]
        local = any(place.inside for place in places)
        return ((LOCAL,) if local else ()) + (
            (HBONE,) if any(place.tunnel for place in places) else ()
        )

    def directly(self) -> Assignment:
        """Return the assignment with connections to the endpoints themselves: neither by the short
        way nor by tunnels."""
        groups = (
            msgspec.structs.replace(
                group,
                places=tuple(
                    msgspec.structs.replace(one, inside=None, tunnel=None) for one in group.places
                ),
            )
            for group in self.groups
        )
        return msgspec.structs.replace(self, groups=tuple(groups))


class Eds(msgspec.Struct, frozen=True, tag="eds"):
    """Endpoints come by themselves, and change without their upstream."""

    name: str
    """Of the assignment."""


class Dns(msgspec.Struct, frozen=True, tag="dns"):
    """Endpoints are names that the proxy looks up."""

    assignment: Assignment
    first_address_only: bool = False
    """There is one name, and a new connection goes to the first address that it has."""


class OriginalDestination(msgspec.Struct, frozen=True, tag="original_destination"):
    """The client's own destination is the endpoint."""


class TunnelEnd(msgspec.Struct, frozen=True, tag="tunnel_end"):
    """The end of the tunnel that a connection's metadata names is the endpoint."""


class DynamicDns(msgspec.Struct, frozen=True, tag="dynamic_dns"):
    """The proxy looks up the host that each request names."""

    verified: bool
    """A server must show a certificate for that name."""


class Fixed(msgspec.Struct, frozen=True, tag="fixed"):
    """One address, or none."""

    address: str = ""
    port: int = 0
    udp: bool = False


class InternalListener(msgspec.Struct, frozen=True, tag="internal_listener"):
    """A listener of the proxy itself, without a socket."""

    name: str


Discovery = Eds | Dns | OriginalDestination | TunnelEnd | DynamicDns | Fixed | InternalListener


class SlowStart(msgspec.Struct, frozen=True):
    """A new endpoint gets its share gradually."""

    window: float
    aggression: float
    minimum_percent: float


class LeastRequest(msgspec.Struct, frozen=True, tag="least_request"):
    slow_start: SlowStart | None = None


class RoundRobin(msgspec.Struct, frozen=True, tag="round_robin"):
    slow_start: SlowStart | None = None


class Random(msgspec.Struct, frozen=True, tag="random"):
    pass


class RingHash(msgspec.Struct, frozen=True, tag="ring_hash"):
    minimum_size: int


class Maglev(msgspec.Struct, frozen=True, tag="maglev"):
    table_size: int | None = None


Balancing = LeastRequest | RoundRobin | Random | RingHash | Maglev


class RetryBudget(msgspec.Struct, frozen=True):
    """The limit of concurrent retries, as a share of concurrent requests."""

    percent: float
    minimum: int


class Limits(msgspec.Struct, frozen=True):
    """What each member of the pool may have under way at once."""

    connections: int = UNLIMITED
    pending_requests: int = UNLIMITED
    requests: int = UNLIMITED
    retries: int = UNLIMITED
    retry_budget: RetryBudget | None = None
    """In place of a number of retries."""


class Ejection(msgspec.Struct, frozen=True):
    """When an endpoint that fails is left alone for a while.

    The numbers are failures in a row: 0 for kinds that never eject, None for Envoy's default.
    """

    errors: int | None = None
    gateway_errors: int | None = None
    local_failures: int | None = None
    """Connections that were not established, and the like."""
    separates_local: bool = False
    """Local failures are counted apart from the endpoint's own answers."""
    interval: float | None = None
    duration: float | None = None
    most_percent: int | None = None
    """How many of the endpoints may be ejected at once."""
    minimum_healthy_percent: int = 0
    """Below it, endpoints are used whether they fail or not."""


class Keepalive(msgspec.Struct, frozen=True):
    """TCP keep-alive; None for what the kernel decides."""

    probes: int | None = None
    time: int | None = None
    interval: int | None = None


class Ping(msgspec.Struct, frozen=True):
    """PING frames of HTTP/2."""

    interval: float
    timeout: float


class HttpVersion(enum.StrEnum):
    """The version of HTTP that endpoints are spoken to in."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    CLIENTS = "clients"
    """As the client does."""
    APPLICATIONS = "applications"
    """As the client does, to the application itself."""


class Http(msgspec.Struct, frozen=True):
    """How HTTP is spoken to endpoints."""

    version: HttpVersion
    max_streams: int | None = None
    """Requests under way at once on one connection of HTTP/2."""
    ping: Ping | None = None
    idle_timeout: float | None = None
    max_connection_duration: float | None = None
    max_requests_per_connection: int | None = None
    names_from_requests: Literal["", "unverified", "verified"] = ""
    """Each request's host is the server name of its connection, and may have to be the name in
    the server's certificate."""
    tunnels: bool = False
    """Requests are connections of users, with windows of a size for these."""
    names_caller: bool = False
    """Requests that go by the short way say who makes them, and others say nothing of it."""


class Settings(msgspec.Struct, frozen=True):
    """How an upstream's connections are made, shared and limited."""

    connect_timeout: float | None = None
    balancing: Balancing | None = None
    """None: the discovery chooses the endpoint."""
    by_locality: bool = False
    """Groups of endpoints have weights."""
    limits: Limits | None = Limits()
    ejection: Ejection | None = None
    keepalive: Keepalive | None = None
    http: Http | None = None
    """None: HTTP/1.1 with Envoy's defaults, or no HTTP."""
    mark: int = 0
    """The mark of connections, which the client's namespace opens; 0: they are opened in the
    proxy's own namespace, without a mark."""


class Upstream(msgspec.Struct, frozen=True):
    """A destination of connections, with all that is decided about them."""

    name: UpstreamName
    discovery: Discovery
    settings: Settings = Settings()
    tls: TlsPlan = PLAIN
    trust_domain: str = ""
    """Whose identities endpoints may have, where the plan of TLS names none."""
    proxy_protocol: Literal["", "V1", "V2"] = ""
    """The version in which endpoints are told first who the client is."""
    short_way: bool = False
    """Endpoints that are reached by the short way may be among the others."""
    tunneled: bool = False
    """And such that are reached by tunnels."""
    origin: Origin | None = None
    """The service's port, or the rule's subset; None: no object asks for it."""
    set_at: tuple[tuple[str, Origin], ...] = ()
    """The field of a rule that sets each part, by the part's name in a traffic policy, such as
    ``outlierDetection``; the others are at their defaults."""

    def origin_of(self, part: str) -> Origin | None:
        """Return the field that sets a part."""
        return next((origin for name, origin in self.set_at if name == part), None)
