"""Virtual addresses for services that declare none. Pure.

A host's address follows from its name, so that it survives restarts and does not depend on which
other services come and go; only where the addresses of two names meet does the later one give way.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping

from meshd.model.service_networks import Network, service_networks

VirtualAddresses = Mapping[str, tuple[str, ...]]
"""The addresses of each host: one of each network."""


@dataclasses.dataclass(frozen=True, slots=True)
class Allocation:
    addresses: dict[str, tuple[str, ...]]
    """The addresses of each host: one of each network that had a free one."""
    left_out: tuple[str, ...] = ()
    """Hosts for which no address was free in one of the networks."""


def allocate(
    previous: VirtualAddresses,
    hosts: Iterable[str],
    cidr: str,
    taken: Collection[str] = (),
) -> Allocation:
    """Return for each host an address of each network of ``cidr``; those of ``previous`` stay.

    ``taken`` are addresses that services have declared: they win over what was given before. A
    network's own and its broadcast address are never given. Raises ValueError if ``cidr`` names no
    networks.
    """
    wanted = sorted(set(hosts))
    found = [_of_network(network, previous, wanted, taken) for network in service_networks(cidr)]
    addresses = {host: tuple(one[host] for one in found if host in one) for host in wanted}
    return Allocation(
        {host: those for host, those in addresses.items() if those},
        tuple(host for host in wanted if any(host not in one for one in found)),
    )


def _of_network(
    network: Network,
    previous: VirtualAddresses,
    hosts: Iterable[str],
    taken: Collection[str],
) -> dict[str, str]:
    """Return an address of the network for each host, as long as there is one."""
    first, count = _usable(network)
    # By number: an address of IPv6 can be written in several ways.
    occupied = {
        offset
        for address in taken
        if (offset := _offset(network, address, first, count)) is not None
    }
    addresses: dict[str, str] = {}
    for host in hosts:
        for address in previous.get(host, ()):
            offset = _offset(network, address, first, count)
            if offset is not None and offset not in occupied and host not in addresses:
                addresses[host] = address
                occupied.add(offset)
    for host in hosts:
        if host not in addresses and len(occupied) < count:
            offset = next(one for one in _from_home(host, count) if one not in occupied)
            occupied.add(offset)
            addresses[host] = str(network[first + offset])
    return addresses


def _from_home(host: str, count: int) -> Iterator[int]:
    """Yield all offsets, beginning with the one that follows from the host's name."""
    home = int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big") % count
    while True:
        yield home
        home = (home + 1) % count


def _usable(network: Network) -> tuple[int, int]:
    """Index of the first address that may be given, and how many may be."""
    if network.num_addresses <= 2:
        return 0, network.num_addresses
    last = 1 if network.version == 4 else 0
    return 1, network.num_addresses - 1 - last


def _offset(network: Network, address: str, first: int, count: int) -> int | None:
    """Return the number of a usable address; None if it is not one."""
    found = _single(address)
    if found is None or found[0] != network.version:
        return None
    offset = found[1] - int(network.network_address) - first
    return offset if 0 <= offset < count else None


@functools.lru_cache(maxsize=65536)
def _single(text: str) -> tuple[int, int] | None:
    """Return the version and the number of an address; None if it is not a single one."""
    try:
        found = ipaddress.ip_network(text)  # of one address, too
    except ValueError:
        return None
    return (found.version, int(found.network_address)) if found.num_addresses == 1 else None
