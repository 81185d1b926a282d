"""Virtual addresses for services that declare none. Pure.

A host's address follows from its name, so that it survives restarts and does not depend on which
other services come and go; only where the addresses of two names meet does the later one give way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclasses.dataclass(frozen=True, slots=True)
class Allocation:
    addresses: dict[str, str]
    """By host."""
    left_out: tuple[str, ...] = ()
    """Hosts for which no address was free."""


def allocate(
    previous: Mapping[str, str],
    hosts: Iterable[str],
    cidr: str,
    taken: Collection[str] = (),
) -> Allocation:
    """Return an address of ``cidr`` for each host; those of ``previous`` stay as they are.

    ``taken`` are addresses that services have declared: they win over what was given before. The
    network's own and its broadcast address are never given. Raises ValueError if ``cidr`` is no
    network.
    """
    network = ipaddress.ip_network(cidr)
    first, count = _usable(network)
    used = set(taken)
    addresses: dict[str, str] = {}
    wanted = sorted(set(hosts))
    for host in wanted:
        address = previous.get(host, "")
        if address and address not in used and _offset(network, address, first, count) is not None:
            addresses[host] = address
            used.add(address)
    occupied = {
        offset
        for address in used
        if (offset := _offset(network, address, first, count)) is not None
    }
    left_out: list[str] = []
    for host in wanted:
        if host in addresses:
            continue
        if len(occupied) >= count:
            left_out.append(host)
            continue
        offset = _home(host) % count
        while offset in occupied:
            offset = (offset + 1) % count
        occupied.add(offset)
        addresses[host] = str(network[first + offset])
    return Allocation(addresses, tuple(left_out))


def _usable(network: Network) -> tuple[int, int]:
    """Index of the first address that may be given, and how many may be."""
    if network.num_addresses <= 2:
        return 0, network.num_addresses
    last = 1 if network.version == 4 else 0
    return 1, network.num_addresses - 1 - last


def _offset(network: Network, address: str, first: int, count: int) -> int | None:
    """Return the number of a usable address; None if it is not one."""
    try:
        offset = int(ipaddress.ip_address(address)) - int(network.network_address) - first
    except ValueError:
        return None
    same = ipaddress.ip_address(address).version == network.version
    return offset if same and 0 <= offset < count else None


def _home(host: str) -> int:
    return int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big")
