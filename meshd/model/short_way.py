"""The short way: a connection between two workloads of one node that stays inside a proxy.

It is opened in the namespace of the workload that is called, without TLS in between. Both ends are
served by the same proxy, so that who calls is known without a certificate being shown.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from meshd.model.workload import Workload

Requests = Literal["", "http1", "http2"]
"""The version of HTTP in which a client's side sends requests, each with its caller's name; empty:
it does not, or that is found out for each connection."""


class ShortWay(msgspec.Struct, frozen=True):
    """Who takes the short way, and to whom. What is not listed has no part in it."""

    callers: tuple[str, ...] = ()
    """Identities of this node that have a valid certificate, as SPIFFE URIs."""
    destinations: tuple[str, ...] = ()
    """Workloads of this node, by uid, that are captured and whose identity has a valid
    certificate."""


class Inside(msgspec.Struct, frozen=True):
    """Where and as whom a workload of this node is reached by the short way."""

    netns: str
    """Path at which its namespace is pinned."""
    identity: str
    """SPIFFE URI."""
    judged: bool = False
    """Policies are about it, so that its requests are read on its side."""


def own_address(workload: Workload) -> str:
    """Return the address by which a workload is called, and seen, on the short way; empty: it has
    none."""
    return next(iter(own_addresses(workload)), "")


def own_addresses(workload: Workload) -> tuple[str, ...]:
    """Return the addresses at which a workload may be called on the short way."""
    return tuple(
        address for address in workload.addresses if ipaddress.ip_address(address).version == 4
    )


def obstacle(workload: Workload) -> str:
    """Return why a workload is not called by the short way; empty: nothing of its own prevents
    that."""
    if workload.host is not None or not workload.netns:
        return "a service of the host has no namespace of its own"
    return "" if own_address(workload) else "it has no IPv4 address"
