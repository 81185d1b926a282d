"""Tunnels between nodes (HBONE): connections inside requests of HTTP/2, over mutual TLS.

Each tunnel goes to the workload itself, at a port of its own:
https://istio.io/latest/docs/ambient/architecture/hbone/.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.model.interception import UNTUNNELED_PORTS
from meshd.model.workload import Workload

PROTOCOL: Final = "hbone"
"""By what nodes tell each other of a workload that can be reached so."""


class Tunnel(msgspec.Struct, frozen=True):
    """How an endpoint on another node is reached."""

    identity: str
    """SPIFFE URI that its certificate must have."""


def takes_tunnels(workload: Workload) -> bool:
    """Return whether a workload's node says that it can be reached by a tunnel."""
    return PROTOCOL in workload.protocols and not workload.host


def leads_to(port: int) -> bool:
    """Return whether there are tunnels to a port."""
    return 0 < port < 65536 and port not in UNTUNNELED_PORTS


def obstacle(workload: Workload) -> str:
    """Return why a workload of this node takes no tunnels; empty: nothing of its own prevents
    that."""
    if workload.host is not None or not workload.netns:
        return "a service of the host has no namespace of its own"
    return ""
