"""VirtualService of networking.istio.io: the routes of requests and connections.

After https://istio.io/latest/docs/reference/config/networking/virtual-service/. A oneof is a group
of optional fields of which at most one is set; validation checks that, not the types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Final, Literal

from meshd.api.base import NETWORKING_VERSIONS, Duration, Object, PortSelector, Strict

MAX_REGEX_PROGRAM: Final = 32768
"""Instructions of RE2, above which a regular expression is refused. Istio allows as many."""


REDIRECT_CODES: Final = (301, 302, 303, 307, 308)
"""Those that a proxy can answer."""
_CLAIM: Final = re.compile(r"@request\.auth\.claims([.\[].+)", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"(?:\[[^\[\]]+\])+")


def is_claim(header: str) -> bool:
    """Return whether a match of headers means a claim of the request's token."""
    return bool(_CLAIM.fullmatch(header))


def claim_names(header: str) -> tuple[str, ...]:
    """Return the names of the claim, and of those within it, that a match means: ``….a.b`` or
    ``…[a][b]``; empty: none are written so."""
    found = _CLAIM.fullmatch(header)
    said = found[1] if found else ""
    if said.startswith("."):
        names = said[1:].split(".")
    else:
        names = said[1:-1].split("][") if _BRACKETS.fullmatch(said) else [""]
    return tuple(names) if all(names) else ()


class StringMatch(Strict, frozen=True):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class Destination(Strict, frozen=True):
    host: str
    subset: str | None = None
    port: PortSelector | None = None


class HeaderOperations(Strict, frozen=True):
    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(Strict, frozen=True):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPMatchRequest(Strict, frozen=True):
    name: str | None = None
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    port: int | None = None
    source_labels: dict[str, str] = {}
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()
    ignore_uri_case: bool = False
    stat_prefix: str | None = None


class HTTPRouteDestination(Strict, frozen=True):
    destination: Destination
    weight: int | None = None
    headers: Headers | None = None


class HTTPRedirect(Strict, frozen=True):
    uri: str | None = None
    authority: str | None = None
    port: int | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: str | None = None
    redirect_code: int | None = None
    prefix_rewrite: str | None = None


class HTTPBody(Strict, frozen=True):
    string: str | None = None
    bytes: str | None = None


class HTTPDirectResponse(Strict, frozen=True):
    status: int
    body: HTTPBody | None = None


class RegexRewrite(Strict, frozen=True):
    match: str
    rewrite: str


class HTTPRewrite(Strict, frozen=True):
    uri: str | None = None
    authority: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRetry(Strict, frozen=True):
    attempts: int = 0
    per_try_timeout: Duration | None = None
    retry_on: str | None = None
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Duration | None = None


class Percent(Strict, frozen=True):
    value: float = 0.0


class FaultDelay(Strict, frozen=True):
    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None  # refused: Istio has no use for it either
    percent: int | None = None  # deprecated by the API, still in old tutorials
    percentage: Percent | None = None


class FaultAbort(Strict, frozen=True):
    http_status: int | None = None
    grpc_status: str | None = None
    http2_error: str | None = None  # refused, as in Istio
    percent: int | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(Strict, frozen=True):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HTTPMirrorPolicy(Strict, frozen=True):
    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(Strict, frozen=True):
    allow_origins: tuple[StringMatch, ...] = ()
    allow_origin: tuple[str, ...] = ()  # deprecated by the API
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class Delegate(Strict, frozen=True):
    """The VirtualService whose routes replace this one's."""

    name: str = ""
    namespace: str = ""


class HTTPRoute(Strict, frozen=True):
    name: str | None = None
    match: tuple[HTTPMatchRequest, ...] = ()
    route: tuple[HTTPRouteDestination, ...] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: Duration | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirror_percentage: Percent | None = None
    mirror_percent: int | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class RouteDestination(Strict, frozen=True):
    destination: Destination
    weight: int | None = None


class L4MatchAttributes(Strict, frozen=True):
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_subnet: str | None = None  # passed over, as in Istio
    source_labels: dict[str, str] = {}
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()


class TCPRoute(Strict, frozen=True):
    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class TLSMatchAttributes(Strict, frozen=True):
    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: dict[str, str] = {}
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()


class TLSRoute(Strict, frozen=True):
    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(Strict, frozen=True):
    hosts: tuple[str, ...] = ()
    """Empty: a delegate, which others refer to and which is in force nowhere by itself."""
    gateways: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    export_to: tuple[str, ...] = ()


class VirtualService(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "VirtualService"
    PLURALS: ClassVar[tuple[str, ...]] = ("virtualservices", "virtualservice", "vs")

    spec: VirtualServiceSpec

    @property
    def is_delegate(self) -> bool:
        return not self.spec.hosts

    def mirrors(self) -> Iterator[Destination]:
        """Yield the destinations of copies of requests."""
        for route in self.spec.http:
            if route.mirror:
                yield route.mirror
            yield from (one.destination for one in route.mirrors)
