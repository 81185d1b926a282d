"""Decides which requests reach an application of this node straight: without being read a second
time, by its own side of the proxy.

The client's side has judged and named them already. Whatever the server's side is wanted for sends
them through it, as those that come over the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshd.compile.policy.served import Spoken
from meshd.model.short_way import Requests

_TAKEN: Final[Mapping[Spoken, Requests]] = {Spoken.HTTP: "http1", Spoken.HTTP2: "http2"}


def taken(spoken: Spoken) -> Requests:
    """Return the requests that an application takes as they are; empty: none are known."""
    return _TAKEN.get(spoken, "")


def obstacle(spoken: Spoken | None, sent: Requests, *, judged: bool = False) -> str:
    """Return why requests do not reach an application straight; empty: they do.

    ``spoken``: at the application's port, as services declare it; ``sent``: by the client's side;
    ``judged``: policies are about the workload.
    """
    if judged:
        return "a policy is about the workload"
    if not sent:
        return "clients do not send it as requests in a known version of HTTP"
    if spoken is None or not taken(spoken):
        return "its port is not declared for one version of HTTP"
    if taken(spoken) != sent:
        return "clients send another version of HTTP than it takes"
    return ""
