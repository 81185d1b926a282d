"""Lists the TCP ports that are listened on for other hosts, in the namespace of the thread.

The kernel is asked by netlink: /proc/net/tcp takes many milliseconds to read, since reading it
walks the connections of all namespaces. The numbers come from ``linux/inet_diag.h``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import Final

from meshd.capture.rules.nfnetlink import DONE, ERROR, messages

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20
_DUMP: Final = 0x301
_LISTEN: Final = 1 << 10
_ASKED: Final = struct.Struct("=BBxxI48x")  # struct inet_diag_req_v2
_FOUND: Final = struct.Struct(">B3xHxx16s")
"""The beginning of struct inet_diag_msg: family, port and address."""


def ports() -> frozenset[int]:
    """Return the listening ports except those of loopback addresses; none if the kernel refuses."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for family in (socket.AF_INET, socket.AF_INET6):
            found |= set(_ports(family))
    return frozenset(found)


def _ports(family: int) -> Iterator[int]:
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, _LISTEN)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as netlink:
        netlink.settimeout(5)
        netlink.send(struct.pack("=IHHII", 16 + len(asked), _BY_FAMILY, _DUMP, 1, 0) + asked)
        while True:
            for kind, body in messages(netlink.recv(1 << 16)):
                if kind in (ERROR, DONE):
                    return
                yield from of_message(body)


def of_message(body: bytes) -> Iterator[int]:
    """Yield the port of an ``inet_diag_msg``, unless bound to a loopback address. Pure."""
    if len(body) < _FOUND.size:
        return
    family, port, raw = _FOUND.unpack_from(body)
    address = ipaddress.ip_address(raw[:4] if family == socket.AF_INET else raw)
    if not address.is_loopback:
        yield port
