"""Plans a workload's incoming connections: mutual TLS is terminated, and the connection handed to
the application's port.

As for outgoing connections there is a thin listener in the namespace, and internal listeners that
all workloads share. The thin listener decides what is accepted, terminates TLS and notes the peer's
identity; the internal listeners know the protocol of each port of each workload.

The application sees the client's own address as its peer's: the connection to it is opened from
inside its namespace with the client's source address (``original_src``), and capture's rules bring
the replies back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from meshd.compile.names import InboundCluster, listener_name
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import Chain, Http, MeshTls, Owner, Tcp
from meshd.compile.plan.choices import ByHttp, ByMeshTls, ByPort, ByWorkload, To, Way
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.tls import HTTP_ALPN, TCP_ALPN
from meshd.compile.policy import mutual_tls_timeout
from meshd.compile.policy.authorization import asks_server_name, of_connections
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic import hbone
from meshd.compile.traffic.entries import ENTRIES, Entry
from meshd.compile.traffic.fixed_chains import (
    LOOP,
    LOOP_TRAP,
    REFUSED,
    REFUSING,
    Connecting,
    denying,
    hop,
)
from meshd.compile.traffic.inbound_routes import NOBODY, Guards, plain_name
from meshd.compile.traffic.sockets import own_traps, socket_in_namespace
from meshd.compile.upstream.fixed import UNDECLARED, inbound_name
from meshd.model.hbone import obstacle
from meshd.model.interception import HBONE_PORT, INBOUND_PORT
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload

UNDECLARED_CHAIN: Final = "undeclared"
INSPECT: Final = "inspect"
"""The chain to the listener that reads first bytes."""


def workload_listener(  # noqa: PLR0917
    workload: Workload,
    identity: Identity,
    ports: Ports,
    policy: PeerPolicy,
    options: MeshOptions,
    guard: Authorization | None = None,
) -> Listener:
    """Return the listener for what the namespace's rules redirect to port 15006.

    A connection that begins like the mesh's mutual TLS is taken as such, wherever mutual TLS is
    allowed; any other connection is plaintext, and goes on only where plaintext is allowed. Only
    the chains and the choice depend on what is served. ``guard``: who may send what.
    """
    traps = own_traps(workload, INBOUND_PORT)
    inspected = frozenset(port for port, spoken in ports.items() if spoken is Spoken.SNIFFED)
    ways: dict[int, Way] = {
        port: _way(policy.mode_of(port), policy.origin_of(port), inspected=port in inspected)
        for port in sorted({*policy.port_modes, *inspected})
    }
    ways |= traps
    tunneled = options.hbone and not obstacle(workload)
    if tunneled:
        ways[HBONE_PORT] = To(hbone.CHAIN)
    otherwise = _way(policy.mode, policy.origin, inspected=False)
    modes = {policy.mode, *policy.port_modes.values()}
    return Listener(
        name=listener_name(workload.uid, "inbound"),
        statistics="inbound",
        socket=socket_in_namespace(workload, INBOUND_PORT, options),
        original_destination=True,
        owner=Owner(workload.uid, workload.netns),
        # What a tunnel carries has addresses of its own.
        hands_over=not tunneled,
        inspects_tls=True,
        # A busy proxy of a client may begin its handshake late, so the timeout is long, although
        # a plaintext client that waits for the server to speak first waits for all of it.
        patience=mutual_tls_timeout.timeout(workload, options),
        # There is a choice even where nothing is to be chosen: to Envoy, listeners with and without
        # a choice are of two kinds.
        choice=ByPort(ways, otherwise) if ways else otherwise,
        chains=(
            *_chains(
                identity,
                modes,
                inspected=bool(inspected),
                named=asks_server_name(guard),
                hands_over=tunneled,
            ),
            *((hbone.receiving_chain(workload, identity, options),) if tunneled else ()),
            *((REFUSING,) if traps or Mode.STRICT in modes else ()),
        ),
    )


def _way(mode: Mode, origin: Origin | None, *, inspected: bool) -> Way:
    """Return the way of connections under a mode."""
    plain = To(Entry(mutual_tls=False, inspected=inspected).chain, origin)
    mutual = To(Entry(mutual_tls=True, inspected=inspected).chain, origin)
    match mode:
        case Mode.DISABLE:
            return plain
        case Mode.PERMISSIVE:
            return ByMeshTls(mutual, plain)
        case Mode.STRICT:
            return ByMeshTls(mutual, To(REFUSED, origin))


def _chains(
    identity: Identity, modes: set[Mode], *, inspected: bool, named: bool, hands_over: bool
) -> Iterator[Chain]:
    """Yield the chains to which any of these modes leads; others would only take memory.

    ``named``: they note the names in TLS hellos; ``hands_over``: and a connection's own addresses.
    """
    for entry in ENTRIES:
        if entry.inspected and not inspected:
            continue
        if entry.mutual_tls and modes - {Mode.DISABLE}:
            yield Chain(
                name=entry.chain,
                target=hop("inbound", entry.listener, after_handshake=True),
                tls=MeshTls(identity, (*HTTP_ALPN, *TCP_ALPN)),
                notes_peer=True,
                notes_server_name=named,
                hands_over=hands_over,
            )
        if not entry.mutual_tls and modes - {Mode.STRICT}:
            yield Chain(
                name=entry.chain,
                target=hop("inbound", entry.listener),
                notes_server_name=named,
                hands_over=hands_over,
            )


def shared_listeners(
    served: Mapping[str, Ports], options: MeshOptions, guards: Guards = NOBODY
) -> Iterator[Listener]:
    """Yield the internal listeners behind the thin ones.

    ``served``: the ports of each workload, by uid; ``guards``: who may connect to it.
    """
    for entry in ENTRIES:
        yield shared_listener(entry, entry.listener, served, options, guards)


def shared_listener(
    entry: Entry,
    name: str,
    served: Mapping[str, Ports],
    options: MeshOptions,
    guards: Guards = NOBODY,
) -> Listener:
    """Return the internal listener of a name behind those that have decided this.

    It answers for all ports, however they are served: a proxy takes up the listeners one after the
    other, so that those before it may have decided by what was served before, or will be.
    """
    chains: dict[str, Chain] = {}
    judged = connecting(served, guards)
    made = _inspected_ways if entry.inspected else uninspected_ways
    ways = made(served, entry, options, chains, judged)
    behind = None if entry.inspected else inspecting_chain(entry._replace(inspected=True).listener)
    undeclared = Tcp(
        statistics=UNDECLARED, upstreams=((UNDECLARED, 1),), access_log=options.access_log
    )
    return Listener(
        name=name,
        statistics="inbound_shared",
        original_destination=True,
        as_the_client=True,
        inspects_http=entry.inspected,
        patience=options.protocol_detection_timeout,
        choice=ByPort({**ways, INBOUND_PORT: To(LOOP)}, guarded_rest(judged)),
        chains=(
            LOOP_TRAP,
            *((behind,) if behind else ()),
            denying(options),
            *((Chain(name=UNDECLARED_CHAIN, target=undeclared),) if judged.rules else ()),
            *(chains[name] for name in sorted(chains)),
        ),
        default=Chain(name=UNDECLARED_CHAIN, target=undeclared),
    )


def connecting(served: Mapping[str, Ports], guards: Guards) -> Connecting:
    """Return who may connect to workloads without speaking HTTP."""
    known = sorted(served.keys() & guards.keys())
    return Connecting({uid: of_connections(guards[uid]) for uid in known})


def guarded_rest(guards: Connecting, otherwise: Way | None = None) -> Way | None:
    """Return the way of connections to ports that no service names: of guarded workloads those that
    they take, of all others ``otherwise``."""
    ways = {uid: guards.choice(uid, To(UNDECLARED_CHAIN)) for uid in guards.rules}
    return ByWorkload(ways, otherwise) if ways else otherwise


def known_ways(
    served: Mapping[str, Ports],
    entry: Entry,
    options: MeshOptions,
    chains: dict[str, Chain],
    guards: Connecting,
) -> dict[int, Way]:
    """Return the ways by port and workload.

    Workloads may serve different protocols on the same port, or nothing. ``guards``: see
    ``connecting``. Requests are judged by what their routes say.
    """
    ways: dict[int, dict[str, Way]] = defaultdict(dict)
    for uid, ports in sorted(served.items()):
        for port, spoken in ports.items():
            if spoken is not Spoken.SNIFFED:
                to = _to(chains, port, spoken, entry, options)
                ways[port][uid] = guards.choice(uid, to) if spoken is Spoken.OPAQUE else to
    return {port: ByWorkload(of_workload) for port, of_workload in sorted(ways.items())}


def uninspected_ways(
    served: Mapping[str, Ports],
    entry: Entry,
    options: MeshOptions,
    chains: dict[str, Chain],
    guards: Connecting,
) -> dict[int, Way]:
    """Return the ways by port and workload; where the first bytes tell the protocol, they lead to
    the chain ``INSPECT``."""
    ways = known_ways(served, entry, options, chains, guards)
    for port, uids in _inspected(served).items():
        ways[port] = ByWorkload({**_declared(ways, port), **dict.fromkeys(uids, To(INSPECT))})
    return dict(sorted(ways.items()))


def inspecting_chain(listener: str) -> Chain:
    """Return the chain to the internal listener that reads first bytes."""
    return Chain(name=INSPECT, target=hop("inspected", listener), hands_over=True)


def _inspected_ways(
    served: Mapping[str, Ports],
    entry: Entry,
    options: MeshOptions,
    chains: dict[str, Chain],
    guards: Connecting,
) -> dict[int, Way]:
    """Return the ways by port, and by workload where these differ."""
    ways = known_ways(served, entry, options, chains, guards)
    for port in _inspected(served):
        http = _to(chains, port, Spoken.EITHER, entry, options)
        opaque = _to(chains, port, Spoken.OPAQUE, entry, options)
        anybody = ByHttp(http, opaque, http10=True)
        others: dict[str, Way] = {}
        for uid in guards.rules:
            if served[uid].get(port) is Spoken.SNIFFED:
                others[uid] = ByHttp(http, guards.choice(uid, opaque), http10=True)
            else:  # by a thin listener from before
                others[uid] = guards.choice(uid, To(UNDECLARED_CHAIN))
        others |= _declared(ways, port)
        ways[port] = ByWorkload(others, anybody) if others else anybody
    return dict(sorted(ways.items()))


def _declared(ways: Mapping[int, Way], port: int) -> Mapping[str, Way]:
    """Return the ways of the workloads whose protocol on a port is declared."""
    known = ways.get(port)
    return known.ways if isinstance(known, ByWorkload) else {}


def _inspected(served: Mapping[str, Ports]) -> dict[int, list[str]]:
    """Return the workloads by each port whose protocol is found out for each connection."""
    found: dict[int, list[str]] = defaultdict(list)
    for uid, ports in sorted(served.items()):
        for port, spoken in ports.items():
            if spoken is Spoken.SNIFFED:
                found[port].append(uid)
    return found


def _to(
    chains: dict[str, Chain], port: int, spoken: Spoken, entry: Entry, options: MeshOptions
) -> To:
    """Return the way to a port's chain, and add the chain if ``chains`` does not have it yet."""
    name = f"{port}|{spoken}"
    if name not in chains:
        cluster = inbound_name(port, spoken)
        target = (
            Tcp(
                statistics=str(cluster),
                upstreams=((str(cluster), 1),),
                access_log=options.access_log,
            )
            if spoken is Spoken.OPAQUE
            else _requests(cluster, entry, options)
        )
        chains[name] = Chain(name=name, target=target)
    return To(name)


def _requests(cluster: InboundCluster, entry: Entry, options: MeshOptions) -> Http:
    """Return the target of requests to a workload's own port.

    The application sees its caller in ``x-forwarded-client-cert``, which cannot be forged: it is
    removed from requests of callers without a certificate, and the routes write it for all others.
    """
    return Http(
        statistics=f"inbound_{cluster.port}",
        routes=str(cluster) if entry.mutual_tls else plain_name(cluster),
        access_log=options.access_log,
        certificate="keep" if entry.mutual_tls else "remove",
        http10=entry.inspected or options.accept_http_10,
        by_server=True,
        asks=options.providers,
    )
