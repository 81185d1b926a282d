"""Plans the short way: connections between workloads of this node that stay inside a proxy.

Where endpoints of a service are told, those of this node are the internal listener ``local``, and
what is particular to each travels in its metadata. So they are balanced, ejected and retried with
all others. The listener has no socket: only clusters lead there, and only by endpoints that say
where and to whom. Behind it is what is behind mutual TLS, in the same form: the ports and protocols
of each workload, the caller in ``x-forwarded-client-cert``, and the application that sees the
caller's own address. Requests that the client's side has read, and that say who makes them, are not
read again where nothing asks for that: their bytes go straight to the application.

A caller that the listener does not know is refused: its identity has no valid certificate now, so
that it could not take the long way either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshd.compile.names import LOCAL, LOCAL_INSPECTED
from meshd.compile.plan.chains import Chain, Tcp
from meshd.compile.plan.choices import ByPort, ByRequests, ByWorkload, To, Way
from meshd.compile.plan.listeners import Callers, Listener
from meshd.compile.plan.upstreams import Upstream
from meshd.compile.policy import straight
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic import inbound
from meshd.compile.traffic.entries import Entry
from meshd.compile.traffic.fixed_chains import LOOP, LOOP_TRAP, REFUSED, REFUSING, denying
from meshd.compile.traffic.inbound_routes import NOBODY, Guards
from meshd.compile.upstream.fixed import UNDECLARED, inbound_name, internal
from meshd.model.interception import INBOUND_PORT
from meshd.model.snapshot import MeshOptions

_UNDECLARED: Final = inbound.UNDECLARED_CHAIN
_BEHIND_TLS: Final = Entry(mutual_tls=True, inspected=False)


def local_upstreams() -> Iterator[Upstream]:
    """Yield the upstream that leads to the listener that reads first bytes."""
    yield internal(LOCAL_INSPECTED)


def local_listeners(
    served: Mapping[str, Ports],
    callers: tuple[str, ...],
    options: MeshOptions,
    guards: Guards = NOBODY,
) -> tuple[Listener, Listener]:
    """Return the listener that all take, and the one behind it that reads first bytes.

    ``served``: the ports of each workload, by uid; ``callers``: see ``ShortWay``; ``guards``: who
    may connect to a workload.
    """
    chains: dict[str, Chain] = {}
    connections = inbound.connecting(served, guards)
    rest = inbound.guarded_rest(connections, To(_UNDECLARED))
    ways = inbound.uninspected_ways(served, _BEHIND_TLS, options, chains, connections)
    # Who is guarded judges requests itself.
    unguarded = {uid: ports for uid, ports in served.items() if uid not in guards}
    ways |= _straight_ways(unguarded, ways, options, chains)
    undeclared = Tcp(
        statistics=UNDECLARED, upstreams=((UNDECLARED, 1),), access_log=options.access_log
    )
    first = Listener(
        name=LOCAL,
        statistics=LOCAL,
        notes_inside=True,
        original_destination=True,
        as_the_client=True,
        callers=Callers(callers, REFUSED),
        choice=ByPort({**ways, INBOUND_PORT: To(LOOP)}, rest),
        chains=(
            LOOP_TRAP,
            REFUSING,
            denying(options),
            inbound.inspecting_chain(LOCAL_INSPECTED),
            Chain(name=_UNDECLARED, target=undeclared),
            *(chains[name] for name in sorted(chains)),
        ),
    )
    return first, _inspecting(served, options, guards)


def _straight_ways(
    served: Mapping[str, Ports],
    ways: Mapping[int, Way],
    options: MeshOptions,
    chains: dict[str, Chain],
) -> Mapping[int, Way]:
    """Return the ways of ports to which requests may go straight; ``served``: by workloads that
    take them so."""
    found: dict[int, ByWorkload] = {}
    for uid, ports in sorted(served.items()):
        for port, spoken in ports.items():
            known = found.get(port, ways[port])
            version = straight.taken(spoken)
            if not version or not isinstance(known, ByWorkload):
                continue
            chain = _straight(port, spoken, options)
            chains[chain.name] = chain
            way = ByRequests(version, To(chain.name), known.ways[uid])
            found[port] = msgspec.structs.replace(known, ways={**known.ways, uid: way})
    return found


def _straight(port: int, spoken: Spoken, options: MeshOptions) -> Chain:
    """Return the chain of requests that the client's side has read.

    That side decides how long a request may stand still. An application that refuses the connection
    has it closed before the client's side takes it for open, so that the request is known not to
    have been sent.
    """
    cluster = str(inbound_name(port, spoken))
    target = Tcp(
        statistics=cluster,
        upstreams=((cluster, 1),),
        access_log=options.access_log,
        idle_timeout=0,
    )
    return Chain(name=f"{port}|{spoken}|straight", target=target)


def _inspecting(served: Mapping[str, Ports], options: MeshOptions, guards: Guards) -> Listener:
    entry = Entry(mutual_tls=True, inspected=True)
    return inbound.shared_listener(entry, LOCAL_INSPECTED, served, options, guards)
