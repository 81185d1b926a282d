"""Tells which endpoints an upstream has for its clients, in their order, from the plan."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshd import wire
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.tls import TlsMode, TlsPlan
from meshd.compile.plan.upstreams import (
    Assignment,
    Dns,
    DynamicDns,
    Eds,
    Group,
    Order,
    OriginalDestination,
    Place,
    Upstream,
)
from meshd.model.workload import shown

_SHORT_WAY: Final = " (short way)"


class Told(msgspec.Struct, frozen=True):
    """One stage of the way to an endpoint."""

    stage: str
    detail: str
    endpoint: str = ""
    """ADDRESS:PORT to which requests may go."""


def tell_tls(tls: TlsPlan, identity: str) -> Told:
    if tls.mode is TlsMode.PLAIN:
        return Told("tls", "plain")
    accepted = ", ".join(tls.subject_alt_names) or "any identity"
    return Told("tls", f"{tls.mode} TLS as {identity}, to one of {accepted}")


def tell_endpoints(
    upstream: Upstream, assignments: Mapping[str, Assignment], asked: str, chosen: str
) -> Iterator[Told]:
    """Yield the endpoints of an upstream.

    ``asked``: HOST:PORT that the client wants. ``chosen``: ADDRESS:PORT to which it connects, if it
    wants no other; empty: it may be any that the name has.
    """
    match upstream.discovery:
        case DynamicDns():
            host = asked.rpartition(":")[0]
            yield Told("endpoint", f"{host} is looked up by the proxy, for each request", asked)
        case OriginalDestination():
            found = _of_original_destination(upstream, assignments)
            known = tuple(_assigned(found)) if found else ()
            if chosen:
                known = tuple(told for told in known if told.endpoint == chosen)
            if not known:
                where = chosen or asked
                known = (
                    Told("endpoint", f"{where}, the address that the client has chosen", where),
                )
            yield from known
        case Dns(assignment):
            yield from _assigned(assignment)
        case Eds(name):
            yield from _assigned(assignments[name])
        case _:
            pass


def tell_detours(told: Iterable[wire.Step], avoiding: Collection[str]) -> tuple[wire.Step, ...]:
    """Return that endpoints which will be reached by the short way are not yet; ``told``: the
    stages, ``avoiding``: the proxies, by name, that reach them over the network."""
    if not avoiding or not any(_SHORT_WAY in step.detail for step in told):
        return ()
    return (wire.Step("detour", f"over the network still in {', '.join(avoiding)}"),)


def _of_original_destination(
    upstream: Upstream, assignments: Mapping[str, Assignment]
) -> Assignment | None:
    """Return the endpoints that the client may have chosen from, as far as they are known."""
    if not isinstance(upstream.name, OutboundCluster):
        return None
    sent = ((False, ""), (True, ""), (True, "http1"), (True, "http2"))
    names = (
        upstream.name.assigned(near=False, inside=inside, tunneled=tunneled, requests=requests)
        for (inside, requests), tunneled in itertools.product(sent, (False, True))
    )
    return next((assignments[name] for name in names if name in assignments), None)


def _assigned(assignment: Assignment) -> Iterator[Told]:
    order = assignment.order
    if order:
        yield Told("near", _ordered(order))
    for group in assignment.groups:
        where = _distance(group) if order else ""
        yield from (_place(place, where) for place in group.places)
    yield from (_place(place, " (not ready)", is_ready=False) for place in assignment.resting)


def _place(place: Place, suffix: str, *, is_ready: bool = True) -> Told:
    endpoint = f"{place.address}:{place.port}"
    workload = f" {shown(place.workload)}" if place.workload else ""
    detail = f"{endpoint}{workload}{_way_to(place)}{suffix}"
    return Told("endpoint", detail, endpoint if is_ready else "")


def _way_to(place: Place) -> str:
    if place.inside:
        return _SHORT_WAY
    if place.tunnel:
        return f" (tunnel, to {place.tunnel.identity})"
    return " (mutual TLS)" if place.mutual_tls else ""


def _distance(group: Group) -> str:
    share = f"weight {group.weight}" if group.weight else f"priority {group.priority}"
    return f", {share}, {group.locality or 'locality unknown'}"


def _ordered(order: Order) -> str:
    place = f"from {order.locality or 'an unknown locality'}"
    if order.distributed:
        return f"{place}: distributed over localities"
    if order.labels:
        return f"{place}: the same {', then '.join(reversed(order.labels))} first"
    return f"{place}: near endpoints first, others when those fail"
