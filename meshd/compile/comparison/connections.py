"""Where a listener leads connections: a part for each way, named by the conditions on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from meshd.compile.comparison.parts import Part
from meshd.compile.names import scope_listener_name
from meshd.compile.plan.chains import Chain, MeshTls, ServerTls, Target, Tcp
from meshd.compile.plan.choices import (
    ByAddress,
    ByBeginning,
    ByHttp,
    ByMeshTls,
    ByNetwork,
    ByOtherPort,
    ByPort,
    ByRequests,
    ByReturn,
    ByRules,
    ByServerName,
    ByTls,
    ByWorkload,
    To,
    Way,
)
from meshd.compile.plan.listeners import Listener
from meshd.compile.traffic.fixed_chains import LOOP
from meshd.model.workload import shown

_OF_SCOPES: Final = (scope_listener_name(""), scope_listener_name("", inspecting=True))
_Conditions = tuple[str, ...]


class Destination(msgspec.Struct, frozen=True):
    """What becomes of connections."""

    target: Target
    tls: MeshTls | ServerTls | None


def connections(listener: Listener, first: str = "") -> Iterator[Part]:
    """Yield the ways of a listener that lead to an end; ``first``: a condition on all of them."""
    if listener.choice is None:
        return
    for conditions, to in _ends(listener.choice, (first,) if first else ()):
        chain = listener.chain(to.chain)
        if chain is None or to.chain == LOOP or _leads_to_the_other(chain):
            continue
        value = Destination(chain.target, chain.tls)
        yield Part("connections", ", ".join(conditions), value, to.origin)


def _leads_to_the_other(chain: Chain) -> bool:
    """Return whether a chain leads from one of a scope's two listeners to the other."""
    target = chain.target
    return isinstance(target, Tcp) and target.upstreams[0][0].startswith(_OF_SCOPES)


def _ends(way: Way | None, said: _Conditions) -> Iterator[tuple[_Conditions, To]]:
    if way is None:
        return
    if isinstance(way, To):
        yield said, way
        return
    for condition, following in _answers(way):
        yield from _ends(following, (*said, condition) if condition else said)


def _answers(way: Way) -> Iterator[tuple[str, Way | None]]:
    match way:
        case ByPort():
            yield from ((f"port {port}", one) for port, one in way.ways.items())
        case ByAddress() | ByNetwork():
            yield from ((f"to {address}", one) for address, one in way.ways.items())
        case ByBeginning():
            yield f"to {' or '.join(way.beginnings)}", way.way
        case ByWorkload():
            yield from ((f"of {shown(uid)}", one) for uid, one in way.ways.items())
        case ByRules():
            yield "", way.allowed
        case ByRequests():
            yield from ((f"requests in {way.version}", way.way), ("others", way.otherwise))
        case ByOtherPort() | ByReturn():
            # What is led back is decided elsewhere, and only while proxies change over.
            yield "", way.these if isinstance(way, ByOtherPort) else None
        case ByTls():
            yield from (("TLS", way.tls), ("without TLS", way.plain))
        case ByServerName():
            yield from ((f"server name {name}", one) for name, one in way.ways.items())
            yield from ((f"server name *{name}", one) for name, one in way.suffixes)
        case ByHttp():
            yield "HTTP", way.http
        case ByMeshTls():
            yield "mutual TLS of the mesh", way.offered
        case To():
            return
    yield "", getattr(way, "otherwise", None)
