"""meshctl → mesh: what the proxies really have, and how a request would travel."""

from __future__ import annotations

import msgspec

from meshd.wire.message import Message


class ProxyConfig(Message, frozen=True):
    """Asks for what the pool really has: listeners, clusters, routes, endpoints or secrets."""

    section: str
    workload: str = ""
    namespace: str = "default"
    proxy: str = ""
    """Name of a member; empty: the first of each pool that answers."""


class Explain(Message, frozen=True):
    """Asks how a request would travel."""

    source: str
    destination: str
    """HOST, HOST:PORT or ADDRESS:PORT."""
    namespace: str = "default"
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()


class Step(msgspec.Struct, frozen=True):
    stage: str
    detail: str


class Explanation(Message, frozen=True):
    stages: tuple[Step, ...]
    verdict: str
    cluster: str
    endpoints: tuple[str, ...]
    identity: str


Messages = ProxyConfig | Explain | Explanation
