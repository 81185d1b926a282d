"""meshctl → mesh: the configuration of the proxies, and the path of a request."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from meshd.wire.message import Message


class ProxyConfig(Message, frozen=True):
    """A question for the pool's listeners, clusters, routes, endpoints or secrets."""

    section: str
    workload: str = ""
    namespace: str = "default"
    proxy: str = ""
    """Name of a member; empty: the first of each pool that answers."""


class Explain(Message, frozen=True):
    """A question for the path of a request."""

    source: str
    destination: str
    """HOST, HOST:PORT or ADDRESS:PORT."""
    namespace: str = "default"
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    begins_as: Literal["", "http", "tls", "other"] = ""
    """What the client speaks; empty: what the port is for."""
    server_name: str = ""
    """In the TLS hello; empty: the host that is named."""
    from_outside: bool = False
    """``source`` is a gateway, at which a client outside the mesh arrives."""
    client: str = ""
    """Address of the client outside the mesh; empty: one that no AuthorizationPolicy names."""
    now: float = 0
    """Unix time at which the request is made; 0: tokens do not expire."""


class AboutWorkload(Message, frozen=True):
    """A question for the policies about requests to a workload."""

    workload: str
    namespace: str = "default"


JudgingAction = Literal["token", "audit", "ask", "deny", "would deny", "allow", "would allow"]
"""Rules on trial would. A rule of tokens refuses those that it does not believe."""


class JudgingRule(msgspec.Struct, frozen=True):
    action: JudgingAction
    policy: str
    """``NAMESPACE/NAME``."""
    field: str
    """Such as ``spec.rules[0]``."""
    fits: str
    """What it fits, in words."""
    place: str
    """``file:line``; empty: the policy is in no file."""
    count: int | None = None
    """How often it has fitted on this node, whichever workload that was about, since the proxies
    began; None: that is not known."""


class Judging(Message, frozen=True):
    """The rules about a workload, in the order in which they count."""

    workload: str
    rules: tuple[JudgingRule, ...]
    otherwise: Literal["allow", "deny"]
    """What becomes of what no rule fits."""


ASKED_STAGE: Final = "extension provider"
"""The stage at which somebody is asked whose answer is not known."""


class Step(msgspec.Struct, frozen=True):
    stage: str
    detail: str


class Explanation(Message, frozen=True):
    stages: tuple[Step, ...]
    verdict: str
    cluster: str
    endpoints: tuple[str, ...]
    identity: str


Messages = ProxyConfig | Explain | Explanation | AboutWorkload | Judging
