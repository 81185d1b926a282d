"""HTTP routes: which requests take which, and what becomes of them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.origin import Origin
from meshd.matching.conditions import RouteMatch, TextMatch


class HeaderAddition(msgspec.Struct, frozen=True):
    """A header that is set, or to whose values one is added."""

    name: str
    value: str
    append: bool = False


class HeaderChanges(msgspec.Struct, frozen=True):
    """What becomes of the headers of requests and of their answers."""

    request_additions: tuple[HeaderAddition, ...] = ()
    request_removals: tuple[str, ...] = ()
    response_additions: tuple[HeaderAddition, ...] = ()
    response_removals: tuple[str, ...] = ()

    def __add__(self, later: HeaderChanges) -> HeaderChanges:
        return HeaderChanges(
            self.request_additions + later.request_additions,
            self.request_removals + later.request_removals,
            self.response_additions + later.response_additions,
            self.response_removals + later.response_removals,
        )


NO_CHANGES: Final = HeaderChanges()


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """When a request is made again."""

    attempts: int
    conditions: str
    status_codes: tuple[int, ...] = ()
    not_sent: bool = False
    """Also where the server's proxy says that it could not connect to the application."""
    elsewhere: bool = True
    """At an endpoint that was not tried before."""
    other_localities: bool = False
    per_try_timeout: float | None = None
    backoff: float | None = None


class Hashing(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a request that decides on the endpoint."""

    by: Literal["header", "cookie", "address", "query"]
    name: str = ""
    path: str = ""
    ttl: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()


class Mirror(msgspec.Struct, frozen=True):
    """Copies of a share of the requests go to another upstream; nobody waits for the answers."""

    upstream: str
    percent: float
    looked_up: bool = False
    """The proxy looks the host's name up."""


class Target(msgspec.Struct, frozen=True):
    """One of the upstreams to which a route forwards."""

    upstream: str
    weight: int = 1
    host: str = ""
    """In place of the request's; empty: it stays."""
    changes: HeaderChanges = NO_CHANGES
    index: int = 0
    """Its place among the destinations that the route's origin lists."""


class RegexRewrite(msgspec.Struct, frozen=True):
    """Parts of a path that fit are replaced."""

    pattern: str
    substitution: str


class Forward(msgspec.Struct, frozen=True, kw_only=True, tag="forward"):
    """The request goes to one of the targets, by weight."""

    targets: tuple[Target, ...]
    timeout: float = 0
    """Seconds; 0: none."""
    retries: Retries | None = None
    hashing: tuple[Hashing, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    host: str = ""
    """In place of the request's; empty: it stays."""
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    unknown_is_unavailable: bool = True
    """A target that is not there answers 503."""


class Redirect(msgspec.Struct, frozen=True, kw_only=True, tag="redirect"):
    """The client is told to ask elsewhere."""

    status: int
    host: str = ""
    path: str = ""
    prefix: str = ""
    """In place of the matched prefix."""
    scheme: str = ""
    port: int = 0


class DirectResponse(msgspec.Struct, frozen=True, tag="answer"):
    """The proxy answers by itself."""

    status: int
    body: str | bytes | None = None


class Delay(msgspec.Struct, frozen=True):
    """A share of the requests waits."""

    seconds: float
    percent: float


class Abort(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the requests is answered with an error."""

    http_status: int = 0
    grpc_status: int = 0
    percent: float


class Fault(msgspec.Struct, frozen=True):
    """Requests are delayed or aborted on purpose."""

    delay: Delay | None = None
    abort: Abort | None = None


class Cors(msgspec.Struct, frozen=True, kw_only=True):
    """Which pages of other origins may read the answers."""

    origins: tuple[TextMatch, ...] = ()
    methods: str = ""
    headers: str = ""
    exposed: str = ""
    max_age: str = ""
    credentials: bool | None = None
    forward_unmatched: bool | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the requests that fit."""

    name: str
    match: RouteMatch = RouteMatch()
    action: Forward | Redirect | DirectResponse
    changes: HeaderChanges = NO_CHANGES
    statistics: str = ""
    repeats_idempotent: bool = True
    """Requests that may be made twice are made again when their connection ends."""
    looks_up: bool = False
    """The proxy looks the request's host up."""
    fault: Fault | None = None
    cors: Cors | None = None
    origin: Origin | None = None
    """The VirtualService; None: the mesh's default."""
    delegate: Origin | None = None
    """The field of the delegate that the origin took the route from."""


NO_SERVICE: Final = "no_service"
"""Name of the route that refuses."""


class Addresses(msgspec.Struct, frozen=True):
    """Routes by the address that the client asked for, before those of the host."""

    routes: tuple[tuple[str, Route], ...]
    """By ``ADDRESS:PORT``."""
    refused: tuple[str, ...] = ()
    """How addresses begin where no other service answers."""
    status: int = 502
    """Of the refusal."""


class VirtualHost(msgspec.Struct, frozen=True, kw_only=True):
    """The routes of some names of hosts; the first that fits is taken."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    addresses: Addresses | None = None
    only_tls: bool = False
    """Requests in plaintext are redirected to https."""
    counts_attempts: bool = True
    """Requests say how often they have been tried."""
    origin: Origin | None = None
    """The service's port, the Gateway's server, or the VirtualService; None: a default."""


class RouteTable(msgspec.Struct, frozen=True):
    """The hosts that clients can ask for on one port."""

    name: str
    hosts: tuple[VirtualHost, ...]
    guard: Authorization | None = None
    """Who may send requests, whatever they ask for; None: anybody."""
