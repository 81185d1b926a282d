"""Tells what the proxy answers by itself: errors, preflights of other origins, and faults that are
injected. Pure.

The proxy looks at the origin first, then injects faults, and only then does what the route says.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.compile.plan.routes import Abort, Cors, Forward, Route
from meshd.matching.fitting import text_fits
from meshd.matching.request import Request

_OK: Final = 200
_UNKNOWN: Final = 2
_UNAVAILABLE: Final = 14
_GRPC_STATUS: Final = {
    **{400: 13, 401: 16, 403: 7, 404: 12},
    **dict.fromkeys((429, 502, 503, 504), _UNAVAILABLE),
}
"""By the status of HTTP, as the proxy and clients of gRPC translate it:
https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md."""


class Answer(msgspec.Struct, frozen=True):
    """A status that the proxy answers."""

    status: int
    grpc_status: int | None = None
    """None: the client does not speak gRPC."""

    def __str__(self) -> str:
        if self.grpc_status is None:
            return str(self.status)
        return f"{self.status} with gRPC status {self.grpc_status}"


def answer(status: int, request: Request) -> Answer:
    """Return what a client sees of an answer with a status of HTTP."""
    if not _is_grpc(request):
        return Answer(status)
    return Answer(_OK, _GRPC_STATUS.get(status, _UNKNOWN))


def aborted(abort: Abort, request: Request) -> Answer:
    """Return the answer to a request that is aborted."""
    if abort.http_status:
        return answer(abort.http_status, request)
    return Answer(_OK, abort.grpc_status if _is_grpc(request) else None)


def _is_grpc(request: Request) -> bool:
    kinds = request.values("content-type")
    return any(kind == "application/grpc" or kind.startswith("application/grpc+") for kind in kinds)


class CrossOrigin(msgspec.Struct, frozen=True):
    """What the proxy makes of a request that a page of some origin sends."""

    origin: str
    allowed: bool
    is_preflight: bool
    answered: bool
    """By the proxy: nothing else sees the request."""

    def __str__(self) -> str:
        what = "preflight" if self.is_preflight else "request"
        verdict = "allowed" if self.allowed else "not allowed"
        onward = "" if self.answered or not self.is_preflight else ", left to the server"
        return f"{what} of origin {self.origin}: {verdict}{onward}"

    def headers(self, cors: Cors) -> dict[str, str]:
        """Return the headers that an answer gets."""
        given: dict[str, str] = {}
        if self.allowed:
            given |= {"allow-origin": self.origin, "expose-headers": cors.exposed}
        if cors.credentials and (self.allowed or self.answered):
            given["allow-credentials"] = "true"
        if self.answered:
            given["allow-methods"] = cors.methods
            given["allow-headers"] = cors.headers
            given["max-age"] = cors.max_age
        return {f"access-control-{name}": value for name, value in given.items() if value}


def cross_origin(route: Route, request: Request) -> CrossOrigin | None:
    """Return what a route's CORS policy makes of a request; None: it has no part in it.

    The proxy judges only requests that are forwarded by their origin.
    """
    cors, origin = route.cors, next(iter(request.values("origin")), "")
    if cors is None or not origin or not isinstance(route.action, Forward):
        return None
    # As the proxy has it: what accepts "*" accepts all.
    allowed = any(text_fits(each, "*") or text_fits(each, origin) for each in cors.origins)
    asks = any(request.values("access-control-request-method"))
    is_preflight = request.method == "OPTIONS" and asks
    answered = is_preflight and (allowed or cors.forward_unmatched is False)
    return CrossOrigin(origin, allowed, is_preflight, answered)
