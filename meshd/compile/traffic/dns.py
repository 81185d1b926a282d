"""The path from each workload's namespace to the resolver that knows the mesh's names as it does.

A workload's queries arrive at UDP port 15053 of its namespace and go on to the resolver's port on
the host's loopback interface. Those over TCP come through the outbound listener, and the scope's
listener knows them by their port. Envoy does not look at the answers.
"""

from __future__ import annotations

from typing import Final

from meshd.compile.names import listener_name
from meshd.compile.plan.chains import Chain, Tcp
from meshd.compile.plan.listeners import DatagramListener
from meshd.compile.traffic.sockets import socket_in_namespace
from meshd.model.interception import DNS_PORT, RESOLVER_CONNECTIONS
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

DNS_CHAIN: Final = "dns"
_SESSION: Final = 5.0
"""Seconds that a query may wait for its answer, and a TCP connection for the next query: resolvers
give up sooner."""
_SHARES: Final = 4
"""So many scopes together can take all connections of a resolver, and not fewer."""


def workload_listener(workload: Workload, resolver: str, options: MeshOptions) -> DatagramListener:
    """Return the listener for what the namespace's rules redirect to port 15053."""
    return DatagramListener(
        name=listener_name(workload.uid, "dns"),
        statistics="dns",
        socket=socket_in_namespace(workload, DNS_PORT, options),
        upstream=resolver,
        idle_timeout=_SESSION,
    )


def tcp_chain(resolver: str, options: MeshOptions) -> Chain:
    """Return the chain for queries over TCP, which clients send if an answer is too long for a
    datagram.

    Who sends a byte now and then keeps a connection, so the clients of a scope may have a part of
    those that the resolver takes at once.
    """
    most = max(1, RESOLVER_CONNECTIONS // (_SHARES * options.proxies))
    target = Tcp(statistics="dns", upstreams=((resolver, 1),), idle_timeout=_SESSION, most=most)
    return Chain(name=DNS_CHAIN, target=target)
