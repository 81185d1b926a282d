"""Reads the addresses of this thread's network namespace, and watches them for changes.

Addresses come and go (DHCP, SLAAC, a second interface), so callers must not remember them. A
netlink library would add a third to the memory of the smaller processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

_ANYWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737, 3849): the default route leads to them."""
_IPV6_ADDR_PREFERENCES: Final = 72
_PREFER_PUBLIC: Final = 2
"""linux/in6.h: no temporary addresses, which change all the time for the sake of privacy."""

# linux/rtnetlink.h, linux/if_addr.h
_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFADDRMSG: Final = 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_BYTES: Final = (4, 16)
"""The lengths of an address, IPv4 and IPv6."""
_UNUSABLE: Final = 0x08 | 0x20 | 0x40
"""The flags IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE."""
_GROUPS: Final = 0x10 | 0x40 | 0x100 | 0x400
"""The multicast groups for addresses and routes of either family."""
_RULE_GROUPS: Final = 0x80 | 0x40000
"""The multicast groups for rules that choose between routing tables, of either family."""
_OF_PROBES: Final = ipaddress.ip_network("fd16:9254:7127:1337::/64")
"""The network of the inbound probe; its addresses are never those of a node or workload."""
_LOOPBACK: Final = 1
"""The index of the loopback interface in any namespace."""
_GATHER: Final = 0.05
"""Seconds in which changes are gathered and reported together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """One address of an interface."""

    text: str
    interface: int

    @property
    def is_ipv4(self) -> bool:
        return ":" not in self.text


def preferred() -> tuple[str, ...]:
    """Return the addresses by which others reach this namespace, IPv4 first.

    These are the source addresses of the default routes; without a default route, the first address
    of each family.
    """
    return routed() or first_of_each(_listed())


def routed() -> tuple[str, ...]:
    """Return the source addresses of the default routes; none without a default route."""
    found: list[str] = []
    for family, anywhere in _ANYWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as looking:
            if family == socket.AF_INET6:
                looking.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC)
            looking.connect((anywhere, 9))  # sends nothing
            found.append(looking.getsockname()[0])
    # Without any other address the kernel chooses a link-local one, which reaches no other link.
    return tuple(one for one in found if not ipaddress.ip_address(one).is_link_local)


def every() -> tuple[str, ...]:
    """Return all addresses by which others could reach this namespace."""
    return tuple(one.text for one in _listed())


def of_each_interface() -> tuple[str, ...]:
    """Return the first address of each family on each interface except loopback."""
    found = {(one.interface, one.is_ipv4): one.text for one in reversed(_listed())}
    return tuple(text for (interface, _), text in found.items() if interface != _LOOPBACK)


def first_of_each(found: Iterable[Address]) -> tuple[str, ...]:
    """Return the first address of each family, IPv4 first.

    A loopback address is chosen only if its family has no other. Pure.
    """
    order = sorted(found, key=lambda one: (one.interface == _LOOPBACK, one.interface))
    first = (
        next((one.text for one in order if one.is_ipv4 is is_ipv4), "") for is_ipv4 in (True, False)
    )
    return tuple(filter(None, first))


class Watch:
    """Calls ``changed`` soon after an address or route of the namespace has changed.

    With ``rules``, a change of the rules that choose between routing tables counts as well. The
    watch stays with the namespace in which it was made, wherever the thread is afterwards.
    """

    def __init__(self, changed: Callable[[], None], *, rules: bool = False) -> None:
        self._changed = changed
        self._due: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _GROUPS | _RULE_GROUPS if rules else _GROUPS))
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._due:
            self._due.cancel()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the socket is empty, or its buffer has overflowed
            while self._socket.recv(1 << 16):
                pass
        if self._due is None:
            self._due = self._loop.call_later(_GATHER, self._tell)

    def _tell(self) -> None:
        self._due = None
        self._changed()


def _listed() -> tuple[Address, ...]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHIIBxxxI", 24, _RTM_GETADDR, _DUMP, 1, 0, 0, 0))
        found: list[Address] = []
        while True:
            messages = list(_messages(netlink.recv(1 << 16)))
            found += (one for kind, body in messages for one in read(kind, body))
            if not messages or any(kind in (_NLMSG_ERROR, _NLMSG_DONE) for kind, _ in messages):
                return tuple(found)


def _messages(part: bytes) -> Iterator[tuple[int, bytes]]:
    while len(part) >= 16:
        length, kind = struct.unpack_from("=IH", part)
        yield kind, part[16:length]
        part = part[max(16, (length + 3) & ~3) :]


def read(kind: int, body: bytes) -> Iterator[Address]:
    """Yield the address of an ``ifaddrmsg`` if others can reach the address. Pure."""
    if kind != _RTM_NEWADDR or len(body) < _IFADDRMSG:
        return
    _, _, flags, scope, interface = struct.unpack_from("=BBBBI", body)
    attributes = dict(_attributes(body[8:]))
    if len(more := attributes.get(_IFA_FLAGS, b"")) == 4:
        (flags,) = struct.unpack("=I", more)
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b""
    if len(raw) in _BYTES and scope == 0 and not flags & _UNUSABLE:
        address = ipaddress.ip_address(raw)
        if address not in _OF_PROBES:
            yield Address(str(address), interface)


def _attributes(part: bytes) -> Iterator[tuple[int, bytes]]:
    while len(part) >= 4:
        length, kind = struct.unpack_from("=HH", part)
        yield kind, part[4:length]
        part = part[max(4, (length + 3) & ~3) :]
