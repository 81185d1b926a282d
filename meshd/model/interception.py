"""Numbers on which the redirecting rules and the proxies' listeners must agree.

The ports, marks and probe addresses are those of Istio's ambient mode, so that its documentation
applies: https://istio.io/latest/docs/ambient/architecture/traffic-redirection/.
"""

from __future__ import annotations

from typing import Final

OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
DNS_PORT: Final = 15053
OWN_PORTS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT, DNS_PORT})
"""In a workload's namespace, of the proxies."""
HBONE_PORT: Final = 15008
"""Where a workload is sent tunnels: connections that travel inside requests of HTTP/2. They arrive
at the listener of ``INBOUND_PORT`` as all that is sent to a workload."""
REFUSING_PORT: Final = 15054
"""Nobody listens there: who is sent to it is refused at once."""
DNS_SERVICE_PORT: Final = 53
"""Where resolvers are asked."""
RESOLVER_CONNECTIONS: Final = 200
"""TCP connections that a resolver takes at once; each has a process of its own."""

PROXY_MARK: Final = 0x539
"""SO_MARK on what a proxy sends from inside a workload's namespace, for the workload."""
PROXY_INBOUND_MARK: Final = 0x53A
"""SO_MARK on what a proxy sends to the workload's application. It differs, because a workload that
calls itself does so over the loopback interface, where only the mark tells the two hops apart."""
INBOUND_CONNMARK: Final = 0x111
"""Connection mark of what a proxy opens to the application with the client's own address."""
INBOUND_ROUTE_TABLE: Final = 15100
"""Routing table that brings the application's replies to those connections back to the proxy. That
of Istio is 100, which others have, too: the CNI plugin for source routing takes it first."""
FORMER_ROUTE_TABLE: Final = 100
"""That of namespaces that earlier versions captured."""
UNTUNNELED_PORTS: Final = OWN_PORTS | {
    HBONE_PORT,
    REFUSING_PORT,
    *(15000, 15004, 15009, 15020, 15021, 15090),
}
"""Ports of proxies, meshd's and Istio's, to which no tunnel leads:
https://istio.io/latest/docs/ops/deployment/application-requirements/."""
HOST_PORTS: Final = range(15101, 15901)
"""Ports of the host on which proxies take the traffic of its own services, two for each."""

CAPTURE_PROBE_ADDRESS: Final = "169.254.7.126"
CAPTURE_PROBE_ADDRESS_V6: Final = "fd16:9254:7127:1337:ffff:ffff:ffff:fffe"
INBOUND_PROBE_PORTS: Final = range(61000, 62000)
"""From these ports the inbound probe and health checks send, so that rules can tell them from other
traffic. They are above those that a kernel gives to connections unless it is told to, see ip(7)."""
CAPTURE_PROBE_PORT: Final = 15022
"""Where the capture probe connects to from inside a workload's namespace. The outbound listener
answers connections to it with one line, ``meshd UID`` and a line feed, and closes: whoever reads
that line knows that the namespace's traffic reaches the proxy."""
