"""Plans tunnels between nodes (HBONE): many connections in one of HTTP/2 over mutual TLS.

On the client's side, endpoints that are reached so lead to the internal listener ``hbone``, which
opens a request for each connection in the tunnel to the endpoint's own address. It has no socket:
only clusters lead there. At the workload, tunnels arrive at the listener for all that it is sent,
at a port of their own, where nothing but mutual TLS is taken, whatever PeerAuthentication says of
other ports. A request leads to a port of that very workload, and goes on there as a connection
whose mutual TLS has ended here: by the same chains, as the client, from the client's address.

As in Istio's ambient mode, PeerAuthentication with ``DISABLE`` closes no tunnel:
https://istio.io/latest/docs/reference/config/security/peer_authentication/.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshd.compile.names import HBONE, hbone_cluster
from meshd.compile.plan.chains import Chain, Hbone, MeshTls, Tcp, Tunneled
from meshd.compile.plan.hbone_routes import End, Ends, HboneRoutes
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.upstreams import InternalListener, Limits, Settings, Upstream
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic.entries import Entry
from meshd.compile.traffic.shares import received_rate
from meshd.model.hbone import obstacle
from meshd.model.interception import UNTUNNELED_PORTS
from meshd.model.snapshot import UNLIMITED, MeshOptions
from meshd.model.workload import Identity, Workload

CHAIN: Final = "hbone"
"""Of a workload's listener, for the tunnels to it."""
_ATTEMPTS: Final = 3
"""The member of the pool at the other end may have been killed just then, or has taken as many new
connections as the workload may be sent in a second."""
_PAUSE: Final = 1.0
"""Seconds, as a client's kernel waits for an answer to its SYN."""
_TO_HTTP: Final = Entry(mutual_tls=True, inspected=True).listener
_TO_OTHERS: Final = Entry(mutual_tls=True, inspected=False).listener


class Receiver(msgspec.Struct, frozen=True):
    """A workload to which tunnels lead."""

    uid: str
    addresses: tuple[str, ...]
    inspected: tuple[int, ...]
    """Its ports at which the first bytes tell the protocol."""
    limit: int
    """Of connections that each member of the pool takes for it by tunnels; 0: any number."""


def receiver(workload: Workload, ports: Ports, limit: int) -> Receiver | None:
    """Return a workload as the end of tunnels; None: none lead to it."""
    if obstacle(workload):
        return None
    inspected = (port for port, spoken in ports.items() if spoken is Spoken.SNIFFED)
    return Receiver(workload.uid, workload.addresses, tuple(sorted(inspected)), limit)


# ---- the client's side


def tunneling_listener(options: MeshOptions) -> Listener:
    """Return the listener from which connections go into tunnels."""
    target = Tcp(
        statistics=HBONE,
        upstreams=((HBONE, 1),),
        access_log=options.access_log,
        attempts=_ATTEMPTS,
        pause=_PAUSE,
        tunnel=Hbone(),
    )
    return Listener(
        name=HBONE,
        statistics=HBONE,
        into_tunnels=True,
        chains=(Chain(name=HBONE, target=target),),
    )


# ---- the workload's side


def receiving_chain(workload: Workload, identity: Identity, options: MeshOptions) -> Chain:
    """Return the chain of a workload's listener for the tunnels to it.

    What limits new connections otherwise, the kernel, sees none of those in a tunnel.
    """
    return Chain(
        name=CHAIN,
        target=Tunneled(
            statistics=HBONE,
            routes=HBONE,
            access_log=options.access_log,
            rate=received_rate(workload, options),
        ),
        tls=MeshTls(identity, ("h2",)),
        notes_peer=True,
    )


def receiving_upstreams(receivers: Iterable[Receiver]) -> Iterator[Upstream]:
    """Yield what leads from tunnels to each workload's ports. They count its connections, which the
    limit of its listener does not: there, a tunnel is one."""
    for one in receivers:
        # As many may wait for a place; all further ones are refused.
        most = one.limit or UNLIMITED
        settings = Settings(limits=Limits(connections=most, pending_requests=most))
        name = hbone_cluster(one.uid, inspecting=False)
        yield Upstream(name, InternalListener(_TO_OTHERS), settings)
        if one.inspected:
            name = hbone_cluster(one.uid, inspecting=True)
            yield Upstream(name, InternalListener(_TO_HTTP), settings)


def receiving_routes(receivers: Iterable[Receiver]) -> HboneRoutes:
    """Return where tunnels lead: to the addresses of the workload that takes them."""
    found: Mapping[str, list[End]] = defaultdict(list)
    for one in receivers:
        end = End(
            one.uid,
            hbone_cluster(one.uid, inspecting=False),
            tuple(port for port in one.inspected if port not in UNTUNNELED_PORTS),
            hbone_cluster(one.uid, inspecting=True),
        )
        for address in dict.fromkeys(one.addresses):
            found[address].append(end)
    ends = (Ends(address, tuple(those)) for address, those in sorted(found.items()))
    return HboneRoutes(HBONE, tuple(ends), tuple(sorted(UNTUNNELED_PORTS)))
