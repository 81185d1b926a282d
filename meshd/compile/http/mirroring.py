"""Copies of requests (``mirror``), which a proxy sends by itself.

Envoy sends them without the filter state of the connection that the request came by: in nobody's
name, and from no namespace. So no copy goes straight to its destination. It goes to an internal
listener, with what the filter state says in headers that replace whatever the client wrote there.
Behind it they become filter state again and are taken off. A copy of which they do not say whose it
is, and from where it is to be sent, goes nowhere.

The listener has no socket, and no other cluster leads there.
"""

from __future__ import annotations

from typing import Final

from meshd.compile.names import MIRROR
from meshd.compile.plan.chains import Chain, Copies
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.upstreams import (
    Http,
    HttpVersion,
    InternalListener,
    Limits,
    Settings,
    Upstream,
)
from meshd.model.snapshot import MeshOptions

_MOST: Final = 1024
"""Copies under way at once: nobody waits for them, so nothing else holds them back."""


def mirror_upstream() -> Upstream:
    """Return an upstream in which each copy has its own connection, so that none waits for
    another."""
    settings = Settings(limits=Limits(requests=_MOST), http=Http(HttpVersion.HTTP2, max_streams=1))
    return Upstream(MIRROR, InternalListener(MIRROR), settings)


def mirror_listener(options: MeshOptions) -> Listener:
    chain = Chain(name=MIRROR, target=Copies(MIRROR, options.access_log))
    return Listener(name=MIRROR, chains=(chain,))
