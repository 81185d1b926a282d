"""Addresses that only the mesh has: nothing outside answers there, so nothing is passed through.

A connection to one goes to the service that has it; where no service does, or none on that port, it
is refused at once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import filter_state_pb2, regex_pb2, string_pb2

from meshd.compile.envoy.matching import (
    Way,
    always,
    by_address,
    by_filter_state,
    by_prefix,
    to_chain,
    to_routes,
)
from meshd.compile.envoy.wellknown import LOCAL_ADDRESS_STATE
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions

REFUSED_STATUS: Final = 502
"""As where nothing is passed through at all."""
_MOST_PREFIXES: Final = 256


def refusal(services: Iterable[ServiceRecord], options: MeshOptions, chain: str) -> Way | None:
    """Return the tree that refuses connections to such addresses by this chain; None: there are
    none.

    The addresses that Services of Kubernetes declare are such, too: they have their ports and no
    others, wherever packets to them are sent.
    """
    way = to_chain(chain)
    declared = sorted(
        {
            str(ipaddress.ip_address(address))
            for service in services
            if service.name and not service.headless
            for address in service.addresses
            if not is_virtual(address, options)
        }
    )
    prefixes = _prefixes(options.service_cidr)
    otherwise = by_prefix(prefixes, way) if prefixes else None
    return by_address(dict.fromkeys(declared, way), otherwise) if declared else otherwise


def routed(
    by_service: Mapping[str, route_components_pb2.Route],
    otherwise: route_components_pb2.Route,
    options: MeshOptions,
) -> route_components_pb2.VirtualHost:
    """Return the virtual host without a name, which routes by the address and port of the request.

    These are the keys of ``by_service``; other addresses of the mesh are refused, and the rest gets
    the route ``otherwise``.
    """
    if not options.service_cidr:
        return route_components_pb2.VirtualHost(routes=[otherwise])
    prefixes = _prefixes(options.service_cidr)
    refused = [_refusal(prefixes)] if prefixes else []
    refused_or_passed = route_components_pb2.RouteList(routes=[*refused, otherwise])
    ways = {address: to_routes(route) for address, route in sorted(by_service.items())}
    rest = to_routes(refused_or_passed)
    if not ways:
        return route_components_pb2.VirtualHost(matcher=always(rest))
    tree = by_filter_state(LOCAL_ADDRESS_STATE, ways, rest).matcher
    return route_components_pb2.VirtualHost(matcher=tree)


def listed(
    virtual_host: route_components_pb2.VirtualHost,
) -> Iterator[route_components_pb2.Route]:
    """Yield the routes of a virtual host, without regard to the requested address."""
    yield from virtual_host.routes
    if virtual_host.HasField("matcher"):
        found = route_components_pb2.RouteList()
        virtual_host.matcher.on_no_match.action.typed_config.Unpack(found)
        yield from (one for one in found.routes if not one.match.filter_state)


def sockets(service: ServiceRecord, port: int, options: MeshOptions) -> Iterator[str]:
    """Yield ``ADDRESS:PORT`` of a service at which nothing outside the mesh answers."""
    for text in () if service.headless else service.addresses:
        if service.name or is_virtual(text, options):
            address = ipaddress.ip_address(text)
            yield f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def is_virtual(text: str, options: MeshOptions) -> bool:
    """Return whether an address is one that the mesh gives to services."""
    if not options.service_cidr:
        return False
    try:
        return ipaddress.ip_address(text) in ipaddress.ip_network(options.service_cidr)
    except ValueError:
        return False


def _refusal(prefixes: tuple[str, ...]) -> route_components_pb2.Route:
    begins = "|".join(re.escape(prefix) for prefix in prefixes)
    virtual = filter_state_pb2.FilterStateMatcher(
        key=LOCAL_ADDRESS_STATE,
        string_match=string_pb2.StringMatcher(
            safe_regex=regex_pb2.RegexMatcher(regex=rf"\[?({begins}).*")
        ),
    )
    return route_components_pb2.Route(
        name="no_service",
        match=route_components_pb2.RouteMatch(prefix="/", filter_state=[virtual]),
        direct_response=route_components_pb2.DirectResponseAction(status=REFUSED_STATUS),
    )


def _prefixes(cidr: str) -> tuple[str, ...]:
    """Return how the addresses of a network begin as text; nothing for a small one, whose addresses
    are whole texts.

    Envoy warns of its matcher for networks, each time, as not finished.
    """
    if not cidr:
        return ()
    network = ipaddress.ip_network(cidr)
    step = 8 if network.version == 4 else 16
    length = -(-network.prefixlen // step) * step
    if length in {0, network.max_prefixlen} or 1 << (length - network.prefixlen) > _MOST_PREFIXES:
        return ()
    found = tuple(_beginning(one) for one in network.subnets(new_prefix=length))
    return found if all(found) else ()


def _beginning(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """Return the beginning of a network that ends where a part of the text does; else empty."""
    if network.version == 4:
        words = str(network.network_address).split(".")[: network.prefixlen // 8]
        return ".".join(words) + ("." if len(words) < 4 else "")
    exploded = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    words = [word.lstrip("0") for word in exploded]
    return ":".join(words) + (":" if len(words) < 8 else "") if all(words) else ""
