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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.capture.rules.nfnetlink import DONE, ERROR, attribute, attributes, messages

_GETLINK, _GETADDR, _GETROUTE, _NEWNEIGH, _GETNEIGH = 18, 22, 26, 28, 30
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_LINK_ADDRESS, _LINK_NAME, _LINK_LOWER, _LINK_MASTER, _LINK_NAMESPACE = 1, 3, 5, 10, 37
_HOLDER: Final = struct.Struct("=BBBBI")  # struct ifaddrmsg
_HELD: Final = (2, 1)  # IFA_LOCAL, which IPv6 has not, and IFA_ADDRESS
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


@dataclasses.dataclass(frozen=True, slots=True)
class Interface:
    """An interface of the workload's namespace."""

    index: int
    name: str
    hardware: bytes
    lower: int = 0
    """The other end of its wire, by the index there; or, of a VLAN, what it is on."""
    master: int = 0
    """The bond or bridge that has what arrives here; 0: none."""
    addresses: frozenset[str] = frozenset()


def interfaces() -> tuple[Interface, ...]:
    """Return those of the namespace that the thread is in which have a hardware address."""
    held: dict[int, set[str]] = defaultdict(set)
    for body, found in _ask(_GETADDR, _DUMP, _HOLDER.pack(socket.AF_UNSPEC, 0, 0, 0, 0), 8):
        raw = next((found[kind] for kind in _HELD if kind in found), b"")
        held[_HOLDER.unpack_from(body)[-1]].add(str(ipaddress.ip_address(raw)) if raw else "")
    return tuple(_interface(body, link, held) for body, link in _links(_DUMP))


def _interface(body: bytes, link: Attributes, held: Mapping[int, Iterable[str]]) -> Interface:
    index = _LINK.unpack_from(body)[2]
    name = link.get(_LINK_NAME, b"").partition(b"\0")[0].decode("utf-8", "replace")
    hardware = link.get(_LINK_ADDRESS, b"")
    return Interface(
        index=index,
        name=name,
        hardware=hardware if any(hardware) else b"",
        lower=_number(link.get(_LINK_LOWER, b"")),
        master=_number(link.get(_LINK_MASTER, b"")),
        addresses=frozenset(held.get(index, ())),
    )


def _links(flags: int, index: int = 0) -> Iterator[tuple[bytes, Attributes]]:
    return _ask(_GETLINK, flags, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0), _LINK.size)


def other_end(interface: int) -> int:
    """Return the index, in the other namespace, of the other end of a wire of this one's; 0 if it
    is no wire to another namespace."""
    for _, link in _links(_REQUEST, interface):
        return _number(link.get(_LINK_LOWER, b"")) if _LINK_NAMESPACE in link else 0
    return 0


def arriving(
    ones: Iterable[Interface], hardware: bytes, one: Neighbour, other: int
) -> frozenset[str]:
    """Return the names of the interfaces at which packets to a neighbour may arrive; none: it is
    somewhere else. ``other``: the other end of the wire that leads there, or 0. Pure.

    Bonds, VLANs and their parents share a hardware address: the end of the very wire decides, or
    who has the neighbour's address. What arrives at part of a bond is the bond's to the rules.
    """
    by_index = {each.index: each for each in ones}
    sharing = [each for each in by_index.values() if each.hardware == hardware]
    wired = [each for each in sharing if other == each.index and each.lower == one.interface]
    holding = [each for each in sharing if one.address in each.addresses]
    chosen = wired or holding or sharing
    return frozenset(by_index.get(each.master, each).name for each in chosen)


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
