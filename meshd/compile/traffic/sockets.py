"""The ports in a workload's namespace at which its proxies listen."""

from __future__ import annotations

from typing import Final

from meshd.compile.plan.choices import To
from meshd.compile.plan.listeners import Socket
from meshd.compile.traffic.fixed_chains import REFUSED
from meshd.model.interception import DNS_PORT, INBOUND_PORT, OUTBOUND_PORT
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

_ANY: Final = ("0.0.0.0", "::")
_LOOPBACK: Final = ("127.0.0.1", "::1")
_OF_CLIENTS: Final = frozenset({OUTBOUND_PORT, DNS_PORT})


def socket_in_namespace(workload: Workload, port: int, options: MeshOptions) -> Socket:
    """Return a socket on all addresses of the workload's namespace, also later ones of IPv6.

    A service of the host has ports of its own there, and those that take what it sends itself are
    reached from the host only.
    """
    addresses = _LOOPBACK if workload.host and port in _OF_CLIENTS else _ANY
    return Socket(
        addresses=addresses if options.ipv6 else addresses[:1],
        port=port_of(workload, port),
        netns=workload.netns,
        near=port == OUTBOUND_PORT,
    )


def port_of(workload: Workload, port: int) -> int:
    """Return the port for the workload's traffic that is ``port`` in a namespace of its own."""
    if workload.host is None:
        return port
    if port in _OF_CLIENTS:
        return workload.host.outbound_port
    return workload.host.inbound_port if port == INBOUND_PORT else port


def own_traps(workload: Workload, port: int) -> dict[int, To]:
    """Return traps by port: a client of a host's port itself would be sent to itself, for ever.

    In a namespace of its own, rules and the shared listeners prevent that.
    """
    return {port_of(workload, port): To(REFUSED)} if workload.host else {}
