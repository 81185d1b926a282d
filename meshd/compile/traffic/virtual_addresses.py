"""Addresses at which nothing outside the mesh may answer, so that nothing is passed through.

A connection to an address that only the mesh has goes to the service that has it; where no service
does, or none on that port, it is refused at once. One to an address that is closed is refused on
all ports.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.compile.plan.choices import ByAddress, ByBeginning, ByPort, To, Way
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import NO_SERVICE, Addresses, DirectResponse, Route
from meshd.matching.connections import canonical
from meshd.model.service import ServiceRecord
from meshd.model.service_networks import Network, service_networks
from meshd.model.snapshot import MeshOptions

_MOST_PREFIXES: Final = 256


def refusal(
    services: Iterable[ServiceRecord], options: MeshOptions, chain: str
) -> ByAddress | ByBeginning | None:
    """Return the tree that refuses connections to such addresses by this chain; None: there are
    none.

    The addresses that Services of Kubernetes declare are such, too: they have their ports and no
    others, wherever packets to them are sent.
    """
    way = To(chain)
    declared = sorted(
        {
            canonical(address)
            for service in services
            if service.name and not service.headless
            for address in service.addresses
            if not is_virtual(address, options)
        }
    )
    prefixes = _prefixes(options.service_cidr)
    otherwise = ByBeginning(prefixes, way) if prefixes else None
    if not declared:
        return otherwise
    return ByAddress(dict.fromkeys(declared, way), otherwise)


def unless_closed(
    way: Way, options: MeshOptions, chain: str, besides: Mapping[int, Way] | None = None
) -> Way:
    """Return the tree that refuses connections to closed addresses by this chain, and leads all
    others on. ``besides``: ports whose connections do not go to the address that they are for.

    They are refused before any service's port is looked at: a service that is recognised by its
    port alone would lead its clients there.
    """
    closed = {
        one.address: To(chain, Origin(one.key, "spec.address")) for one in options.closed_addresses
    }
    if not closed:
        return way
    refusing = ByAddress(closed, way)
    return ByPort(besides, refusing) if besides else refusing


def closed_routes(port: int, options: MeshOptions) -> dict[str, Route]:
    """Return the routes of requests to closed addresses, by ``ADDRESS:PORT``: their connections are
    older than that."""
    refused = Route(name=NO_SERVICE, action=DirectResponse(503))
    return {f"{_in_sockets(one.address)}:{port}": refused for one in options.closed_addresses}


def routed(by_address: Mapping[str, Route], service_cidr: str) -> Addresses:
    """Return the routes by the address and port of the request, the keys of ``by_address``; other
    addresses of the mesh are refused."""
    return Addresses(
        tuple(sorted(by_address.items(), key=lambda item: item[0])), _prefixes(service_cidr)
    )


def sockets(service: ServiceRecord, port: int, options: MeshOptions) -> Iterator[str]:
    """Yield ``ADDRESS:PORT`` of a service at which nothing outside the mesh answers."""
    for text in () if service.headless else service.addresses:
        if service.name or is_virtual(text, options):
            yield f"{_in_sockets(text)}:{port}"


@functools.lru_cache(maxsize=65536)
def _in_sockets(text: str) -> str:
    """Return an address as it stands before a port."""
    address = ipaddress.ip_address(text)
    return f"[{address}]" if address.version == 6 else str(address)


def is_virtual(text: str, options: MeshOptions) -> bool:
    """Return whether an address is one that the mesh gives to services."""
    return bool(options.service_cidr) and _is_in(text, options.service_cidr)


@functools.lru_cache(maxsize=65536)
def _is_in(text: str, cidr: str) -> bool:
    """Return whether a text is an address of the networks."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in service_networks(cidr))


def _prefixes(cidr: str) -> tuple[str, ...]:
    """Return how the addresses of the networks begin as text.

    Envoy warns of its matcher for networks, each time, as not finished.
    """
    return tuple(each for network in service_networks(cidr) for each in _beginnings(network))


def _beginnings(network: Network) -> tuple[str, ...]:
    """Return how the addresses of a network begin; nothing for a small one, whose addresses are
    whole texts."""
    step = 8 if network.version == 4 else 16
    length = -(-network.prefixlen // step) * step
    if length in {0, network.max_prefixlen} or 1 << (length - network.prefixlen) > _MOST_PREFIXES:
        return ()
    found = tuple(_beginning(one) for one in network.subnets(new_prefix=length))
    return found if all(found) else ()


def _beginning(network: Network) -> str:
    """Return the beginning of a network that ends where a part of the text does; else empty."""
    if network.version == 4:
        words = str(network.network_address).split(".")[: network.prefixlen // 8]
        return ".".join(words) + ("." if len(words) < 4 else "")
    exploded = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    words = [word.lstrip("0") for word in exploded]
    return ":".join(words) + (":" if len(words) < 8 else "") if all(words) else ""
