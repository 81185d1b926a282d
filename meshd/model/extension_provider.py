"""Extension providers: servers that proxies ask whether a request is allowed."""

from __future__ import annotations

from typing import Literal

import msgspec


class Body(msgspec.Struct, frozen=True):
    """How much of a request's body the server is shown."""

    most: int
    """Bytes."""
    partly: bool = False
    """Of a longer one the beginning; otherwise the request is refused."""
    as_bytes: bool = False
    """In the field for bytes: it need not be text."""


class AuthorizationProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A server that speaks Envoy's protocol for external authorization, over gRPC or HTTP.

    https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/.
    """

    name: str
    """By which AuthorizationPolicies call it."""
    host: str
    """Of its service in the mesh."""
    port: int
    speaks: Literal["grpc", "http"]
    timeout: float = 600.0
    """Seconds for an answer."""
    fails_open: bool = False
    """Where there is no answer, requests are allowed."""
    status_on_error: int = 403
    """With which requests are refused otherwise."""
    clears_routes: bool = False
    """A request that it allows is routed anew, as it has changed it."""
    body: Body | None = None
    """None: it is shown no body."""
    path_prefix: str = ""
    """HTTP: of the path at which it is asked."""
    shown: tuple[str, ...] = ()
    """HTTP: the request's headers that it is shown; a ``*`` at an end is a wildcard."""
    added: tuple[tuple[str, str], ...] = ()
    """HTTP: further headers that it is shown."""
    to_application: tuple[str, ...] = ()
    """HTTP: the headers of its answer that go on with a request that it allows."""
    to_client: tuple[str, ...] = ()
    """HTTP: those that go to the client with the answer of the application."""
    to_refused: tuple[str, ...] = ()
    """HTTP: those that go to the client of a request that it refuses; empty: all."""
