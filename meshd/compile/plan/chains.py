"""Filter chains: what becomes of a connection once a listener has chosen."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshd.compile.plan.authorization import Authorization
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.workload import Identity

AccessLog = Literal["off", "errors", "all"]


class Tunnel(msgspec.Struct, frozen=True):
    """Connections travel inside an HTTP request to another proxy."""

    host: str
    port: int
    use_post: bool


class Hbone(msgspec.Struct, frozen=True):
    """Connections travel inside requests of HTTP/2 to other nodes, as their metadata says."""


class Tcp(msgspec.Struct, frozen=True, kw_only=True, tag="tcp"):
    """The bytes go on to one upstream, or to one of several by weight."""

    statistics: str
    """Name in statistics."""
    upstreams: tuple[tuple[str, int], ...]
    """Names with weights. One alone needs no weight; of several, weight 0 gets nothing."""
    access_log: AccessLog = "off"
    attempts: int = 1
    pause: float = 0.0
    """Seconds before the second attempt, at most; twice as many before each further one."""
    idle_timeout: float | None = None
    """Seconds; None: the proxy's default."""
    by_client_address: bool = False
    """Connections of one address go to one endpoint."""
    tunnel: Tunnel | Hbone | None = None
    lookup_port: int = 0
    """The name of the TLS hello is looked up and connected to on this port; 0: it is not."""
    after_handshake: bool = False
    """Connect no sooner than the client's certificate is known."""
    rules: Authorization | None = None
    """Who may connect, once the client has sent something; None: anybody."""
    most: int = 0
    """Connections at a time in each proxy, after which further ones are closed; 0: any number."""
    denied: bool = False
    """Policies deny the connection, which goes nowhere."""


class Http(msgspec.Struct, frozen=True, kw_only=True, tag="http"):
    """Requests are routed one by one."""

    statistics: str
    routes: str
    """Name of the route table."""
    scope: str = ""
    """Of clients, whose tables are chosen by the port that each client wanted, in place of one;
    empty: there is one."""
    access_log: AccessLog
    applies_routes: bool = False
    """Routes say more than where to go: CORS, faults, retries, lookups."""
    certificate: Literal["remove", "keep", "replace"]
    """What becomes of ``x-forwarded-client-cert``, which says who called."""
    http10: bool = False
    by_server: bool = False
    """They arrive at the workload that serves them: its answers stay as they are, and the routes
    may say who may send them."""
    asks: tuple[AuthorizationProvider, ...] = ()
    """The extension providers that routes may have asked."""
    scheme: Literal["", "http", "https"] = ""
    """How they came from outside the mesh, to a gateway, whose routes may say who may send them;
    empty: they came from inside."""

    @property
    def is_judged(self) -> bool:
        """Return whether the routes may say who may send the requests."""
        return self.by_server or bool(self.scheme)


class Tunneled(msgspec.Struct, frozen=True, kw_only=True, tag="tunneled"):
    """Each request of HTTP/2 is a connection, and goes where the route table lets it."""

    statistics: str
    routes: str
    """Name of the route table."""
    access_log: AccessLog
    rate: int = 0
    """Requests a second that are taken, for whichever connection; 0: any number."""


class Copies(msgspec.Struct, frozen=True, tag="copies"):
    """Copies of requests go where their headers say, in the name of whose connection it was."""

    name: str
    access_log: AccessLog
    routes: str = ""
    """Name of the route table by which they go to the provider that their headers name, as they are
    questions; empty: they go where their headers say."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The proxy says this and hangs up."""

    text: str


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The proxy hangs up at once."""


Target = Tcp | Http | Tunneled | Copies | Answer | Refusal


class MeshTls(msgspec.Struct, frozen=True, tag="mesh"):
    """The mesh's mutual TLS ends here: the client shows a certificate of the trust domain."""

    identity: Identity
    """Whose certificate is shown."""
    alpn: tuple[str, ...]


class ClientVerification(msgspec.Struct, frozen=True, kw_only=True):
    """How the certificates of clients from outside are judged."""

    authority: str = ""
    """Name of the secret; empty: by the further conditions alone."""
    required: bool
    subject_alt_names: tuple[str, ...] = ()
    spki: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    untrusted: bool = False
    """Certificates of any authority are accepted."""


class ServerTls(msgspec.Struct, frozen=True, kw_only=True, tag="server"):
    """TLS of clients from outside ends here."""

    certificates: tuple[str, ...]
    """Names of secrets."""
    alpn: tuple[str, ...]
    minimum: str
    maximum: str
    """Protocol versions, such as ``TLSV1_2``."""
    ciphers: tuple[str, ...] = ()
    clients: ClientVerification | None = None
    """None: clients are asked for no certificate."""


class Owner(msgspec.Struct, frozen=True):
    """The workload to which a connection belongs."""

    uid: str
    netns: str
    """Where upstream connections are opened; empty: it is a service of the host."""
    certificate: str = ""
    """Name of the secret that upstream connections present; empty: that is not said here."""
    caller: str = ""
    """Identity in whose name the short way is taken, as a SPIFFE URI; empty: it is not."""
    address: str = ""
    """Address that those see who are reached by the short way."""
    baggage: str = ""
    """What tunnels say of it; empty: nothing."""


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the connections that are led here, by whichever rules."""

    name: str
    target: Target
    tls: MeshTls | ServerTls | None = None
    owner: Owner | None = None
    """Noted for upstream connections, where the listener has not done so."""
    names_callers: bool = False
    """On the short way it is known that requests come from here, which say who makes them."""
    announces_http: bool = False
    """The other end is told that HTTP was detected."""
    hands_over: bool = False
    """The next listener learns the connection's own addresses."""
    leads_back: bool = False
    """The next listener learns that the connection comes back from where it led it."""
    notes_peer: bool = False
    """The client's certificate is noted once the handshake is done."""
    notes_server_name: bool = False
    """The name in the client's TLS hello is noted, for policies."""
