"""An HTTP request as the proxy reads it, before it looks for a route."""

from __future__ import annotations

import dataclasses
from typing import Final

from meshd.base.json_values import JsonObject

FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED_PROTO: Final = "x-forwarded-proto"
_JOINED: Final = frozenset(
    [
        "accept",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "access-control-request-private-network",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-type",
        "expect",
        "grpc-accept-encoding",
        "grpc-timeout",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "origin",
        "pragma",
        "proxy-status",
        "referer",
        "user-agent",
        "via",
        "x-client-trace-id",
        "x-envoy-attempt-count",
        "x-envoy-decorator-operation",
        "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node",
        "x-envoy-external-address",
        "x-envoy-original-path",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-request-id",
    ]
)
"""Headers that the proxy knows: it reads their lines as one, and compares that."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The parts of an HTTP request at which routes look."""

    host: str
    path: str = "/"
    """With its query."""
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    """Names and values, line by line."""
    scheme: str = "http"
    """Empty: an empty ``x-forwarded-proto`` hides it, and no route is found."""
    destination: str = ""
    """``ADDRESS:PORT`` that the connection is for."""
    claims: JsonObject | None = None
    """What its token says; None: there is none that is believed."""

    def with_(self, *, host: str, path: str) -> Request:
        return dataclasses.replace(self, host=host, path=path)

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of a header that are compared, each for itself."""
        pseudo = {
            ":method": self.method,
            ":authority": self.host,
            ":path": self.path,
            ":scheme": self.scheme,
        }
        if name in pseudo:
            return (pseudo[name],)
        wanted = name.lower()
        lines = tuple(value for each, value in self.headers if each.lower() == wanted)
        return (",".join(filter(None, lines)),) if lines and wanted in _JOINED else lines


def claimed(request: Request) -> Request:
    """Return a request with the scheme that it claims, as is believed inside the mesh."""
    for claim in request.values(FORWARDED_PROTO):
        if claim.lower() in {"", "http", "https"}:
            return dataclasses.replace(request, scheme=claim.lower())
    return request
