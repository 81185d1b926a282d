"""What listeners of all directions share: names, addresses in a namespace, traps for loops."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2

from meshd.compile.envoy import limits
from meshd.compile.envoy.matching import Way, to_chain
from meshd.compile.envoy.wellknown import seconds, socket_address
from meshd.compile.names import BLACK_HOLE_CLUSTER
from meshd.compile.traffic.tcp import tcp_proxy
from meshd.model.interception import DNS_PORT, INBOUND_PORT, OUTBOUND_PORT
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

REFUSED: Final = "refused"
LOOP: Final = "loop"

_ANY: Final = ("0.0.0.0", "::")
_LOOPBACK: Final = ("127.0.0.1", "::1")
_OF_CLIENTS: Final = frozenset({OUTBOUND_PORT, DNS_PORT})


def listener_name(uid: str, what: str) -> str:
    return f"{uid}|{what}"


def workload_of(name: str) -> str:
    """Return the uid in a listener's name; empty if the listener belongs to no single workload."""
    uid, bar, _ = name.partition("|")
    return uid if bar else ""


def in_namespace(
    workload: Workload,
    what: str,
    port: int,
    options: MeshOptions,
    parts: listener_pb2.Listener,
    *,
    udp: bool = False,
) -> listener_pb2.Listener:
    """Return a listener on all addresses of the workload's namespace, also later ones of IPv6.

    ``parts``: what is not the same in all of them.

    A service of the host has ports of its own there, and those that take what it sends itself are
    reached from the host only.
    """
    netns, number = workload.netns, port_of(workload, port)
    v4, v6 = _LOOPBACK if workload.host and port in _OF_CLIENTS else _ANY
    listener = listener_pb2.Listener(
        name=listener_name(workload.uid, what),
        stat_prefix=what,
        address=socket_address(v4, number, netns, udp=udp),
        additional_addresses=[
            listener_pb2.AdditionalAddress(address=socket_address(v6, number, netns, udp=udp))
        ]
        if options.ipv6
        else [],
        # Also while IPv6 is switched off on the interface that has the address.
        freebind={"value": True} if options.ipv6 else None,
        # What is inbound stops listening when the proxy is drained, see ``proxy.admin``.
        # Workloads take turns: whoever opens many at once waits in its own backlog.
        max_connections_to_accept_per_socket_event=None if udp else {"value": 1},
        traffic_direction="UNSPECIFIED" if udp else "INBOUND",
        socket_options=[] if udp else limits.socket_options(local=port == OUTBOUND_PORT),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
    )
    listener.MergeFrom(parts)
    return listener


def port_of(workload: Workload, port: int) -> int:
    """Return the port for the workload's traffic that is ``port`` in a namespace of its own."""
    if workload.host is None:
        return port
    if port in _OF_CLIENTS:
        return workload.host.outbound_port
    return workload.host.inbound_port if port == INBOUND_PORT else port


def refused() -> listener_components_pb2.FilterChain:
    """Return a chain that hangs up at once: it has no filter."""
    return listener_components_pb2.FilterChain(name=REFUSED)


def own_traps(workload: Workload, port: int) -> dict[int, Way]:
    """Return traps by port: a client of a host's port itself would be sent to itself, for ever.

    In a namespace of its own, rules and the shared listeners prevent that.
    """
    return {port_of(workload, port): to_chain(REFUSED)} if workload.host else {}


def chain_match(
    *,
    port: int | None = None,
    prefixes: Sequence[str] = (),
    server_names: Sequence[str] = (),
    tls: bool | None = None,
    alpn: Sequence[str] = (),
) -> listener_components_pb2.FilterChainMatch:
    """Return a match; ``prefixes`` are addresses or CIDRs of the destination; ``tls`` None:
    either."""
    return listener_components_pb2.FilterChainMatch(
        destination_port={"value": port} if port is not None else None,
        prefix_ranges=[_range(prefix) for prefix in prefixes],
        server_names=server_names,
        transport_protocol="" if tls is None else "tls" if tls else "raw_buffer",
        application_protocols=alpn,
    )


def _range(prefix: str) -> address_pb2.CidrRange:
    network = ipaddress.ip_network(prefix, strict=False)
    return address_pb2.CidrRange(
        address_prefix=str(network.network_address), prefix_len={"value": network.prefixlen}
    )


def chain(
    name: str,
    match: listener_components_pb2.FilterChainMatch | None,
    filters: Sequence[listener_components_pb2.Filter],
    *,
    transport_socket: base_pb2.TransportSocket | None = None,
) -> listener_components_pb2.FilterChain:
    timeout = None if transport_socket is None else seconds(limits.HANDSHAKE_TIMEOUT)
    return listener_components_pb2.FilterChain(
        name=name,
        filter_chain_match=match,
        filters=filters,
        transport_socket=transport_socket,
        transport_socket_connect_timeout=timeout,
    )


def loop_trap() -> listener_components_pb2.FilterChain:
    """Return the trap for clients of the listener itself, which would be sent to itself, for
    ever."""
    return chain(LOOP, None, [tcp_proxy(BLACK_HOLE_CLUSTER, [(BLACK_HOLE_CLUSTER, 1)])])
