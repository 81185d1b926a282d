"""By which wire this namespace reaches another one, if by any.

Nothing is sent to an address before it is known to whom it would go: two namespaces may have the
same one. So an address counts only where its neighbour's hardware address is one of the namespace.
``linux/rtnetlink.h``, ``linux/neighbour.h`` and ``linux/if_link.h`` have the numbers.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from meshd.capture.rules.nfnetlink import DONE, ERROR, attribute, attributes, messages

_GETLINK, _GETROUTE, _NEWNEIGH, _GETNEIGH = 18, 26, 28, 30
_LINK_HEADER: Final = 16  # struct ifinfomsg
_LINK_ADDRESS, _LINK_NAME = 1, 3
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_TYPE_AT: Final = 7
_UNICAST: Final = 1
_DESTINATION, _OUT_INTERFACE, _GATEWAY, _VIA = 1, 4, 5, 18
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # struct ndmsg
_NEIGHBOUR_ADDRESS, _NEIGHBOUR_HARDWARE = 1, 2
_USE: Final = 1  # NTF_USE: find it out
_REQUEST, _DUMP, _CREATE = 1, 0x301, 0x401
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

Attributes = Mapping[int, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """An address that is on one of this namespace's own wires."""

    address: str
    interface: int


def interfaces() -> dict[bytes, str]:
    """Hardware addresses in the namespace that the thread is in, with their interfaces' names."""
    found = _ask(_GETLINK, _DUMP, struct.pack("=B15x", socket.AF_UNSPEC), _LINK_HEADER)
    return {
        hardware: link.get(_LINK_NAME, b"").partition(b"\0")[0].decode("utf-8", "replace")
        for _, link in found
        if any(hardware := link.get(_LINK_ADDRESS, b""))
    }


def neighbour(address: str) -> Neighbour | None:
    """Return the neighbour; None over a gateway, to nowhere, or within this namespace."""
    ip = ipaddress.ip_address(address)
    header = _ROUTE.pack(_FAMILY[ip.version], 8 * len(ip.packed), 0, 0, 0, 0, 0, 0, 0)
    asked = header + attribute(_DESTINATION, ip.packed)
    for body, route in _ask(_GETROUTE, _REQUEST, asked, _ROUTE.size):
        if body[_TYPE_AT] == _UNICAST and not {_GATEWAY, _VIA} & route.keys():
            return Neighbour(address, _number(route.get(_OUT_INTERFACE, b"")))
    return None


def hardware_of(one: Neighbour) -> bytes:
    """Return the hardware address; empty as long as it is not known."""
    for _, found in _ask(_GETNEIGH, _REQUEST, _neighbour(one), _NEIGHBOUR.size):
        return found.get(_NEIGHBOUR_HARDWARE, b"")
    return b""


def find_out(one: Neighbour) -> None:
    """Have the kernel ask who has the address."""
    tuple(_ask(_NEWNEIGH, _CREATE | 4, _neighbour(one, _USE), _NEIGHBOUR.size))


def _neighbour(one: Neighbour, flags: int = 0) -> bytes:
    ip = ipaddress.ip_address(one.address)
    header = _NEIGHBOUR.pack(_FAMILY[ip.version], one.interface, 0, flags, 0)
    return header + attribute(_NEIGHBOUR_ADDRESS, ip.packed)


def _ask(kind: int, flags: int, asked: bytes, header: int) -> Iterator[tuple[bytes, Attributes]]:
    """Bodies of the answers, and the attributes behind their headers; nothing where the kernel
    refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 16 + len(asked), kind, flags, 1, 0) + asked)
        while True:
            for found, body in messages(netlink.recv(1 << 16)):
                if found in (ERROR, DONE):
                    return
                yield body, dict(attributes(body[header:]))
            if flags != _DUMP:
                return


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)
