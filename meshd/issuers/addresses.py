"""Decides at which addresses keys may be asked for. Pure.

Whoever writes a RequestAuthentication names a URL that this machine then asks. So what only this
machine reaches is no place for keys: its own services, its neighbours on the link, and the places
where clouds hand out credentials.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from meshd.model.issuer import Reach

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_OF_CLOUDS: Final = (
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
)
"""Where clouds hand out credentials, beside link-local addresses: Alibaba, Azure, Oracle, Amazon,
Google."""
_TRANSLATED: Final = ("64:ff9b::/96", "64:ff9b:1::/48")
"""IPv4 addresses by way of a translator: RFC 6052, RFC 8215."""


def refusal(address: str, reach: Reach, own: Iterable[str] = ()) -> str:
    """Return why an address is not asked; empty if it is. ``own``: this machine's addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return f"{address} is no address"
    if _is_in(found, reach.refused):
        return f"{address} is in issuers.refused_networks"
    if _is_in(found, reach.allowed):
        return ""
    for one in (*_within(found), found):
        if why := _why(one, own):
            return f"{address} is {why}; issuers.allowed_networks may allow it"
    return ""


def _why(address: _Address, own: Iterable[str]) -> str:
    if address.is_loopback or address.is_unspecified:
        return "this machine's loopback"
    if address.is_link_local:
        return "a link-local address, where clouds hand out credentials"
    if address.is_multicast or (address.is_reserved and not _is_in(address, _TRANSLATED)):
        return "no address of one machine"
    if _is_in(address, _OF_CLOUDS):
        return "an address where clouds hand out credentials"
    if any(ipaddress.ip_address(one) == address for one in own):
        return "this machine's own"
    return ""


def _within(address: _Address) -> tuple[_Address, ...]:
    """Return the addresses of IPv4 that an address of IPv6 stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if _is_in(address, _TRANSLATED) or int(address) >> 32 == 0:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)


def _is_in(address: _Address, networks: Iterable[str]) -> bool:
    found = (ipaddress.ip_network(one, strict=False) for one in networks)
    return any(one.version == address.version and address in one for one in found)
