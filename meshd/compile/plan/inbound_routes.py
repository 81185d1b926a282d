"""The server's side of HTTP: who may say for whom a request is, on its way to the application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from meshd.compile.names import InboundCluster
from meshd.compile.plan.authorization import Authorization


class InboundRoute(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of some callers."""

    name: str
    callers: tuple[str, ...] = ()
    """SPIFFE URIs; empty: anybody's requests."""
    names_caller: bool = False
    """Only requests by the short way that say who makes them, which no gateway's do."""
    certificate: Literal["keep", "replace", "append"] = "keep"
    """What becomes of ``x-forwarded-client-cert``: it stays as it is, or the caller's certificate
    stands in its place or at its end."""


class InboundRoutes(msgspec.Struct, frozen=True):
    """The routes to a port of applications. The first that fits the caller is taken."""

    name: str
    application: InboundCluster
    routes: tuple[InboundRoute, ...]
    repeats: int
    """How often a request that may be made twice is made again, when the application's connection
    ends before the answer."""
    guards: Mapping[str, Authorization] = {}
    """Who may send requests to a workload, by uid; to all others, anybody may."""
    misdirected: tuple[str, ...] = ()
    """The uids of workloads whose requests are refused. Policies are about them, and they do not
    serve the port so any more: what arrives comes by a connection from before."""
