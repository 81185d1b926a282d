"""The connections that proxies have opened to applications, in the namespace of the thread.

The kernel is asked by netlink, and told to end one of them; the numbers come from
``linux/inet_diag.h`` and ``linux/sock_diag.h``. It tells the marks of connections only to those who
may also end them.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules.nfnetlink import (
    DONE,
    ERROR,
    NLM_F_ACK,
    NLM_F_REQUEST,
    attributes,
    messages,
)
from meshd.model.interception import PROXY_INBOUND_MARK
from meshd.model.open_connection import OpenConnection

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20
_DESTROY: Final = 21
_DUMP: Final = 0x300
_OPEN: Final = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8
"""ESTABLISHED, and FIN_WAIT1, FIN_WAIT2 and CLOSE_WAIT: one direction may have ended."""
_ANY: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")
_ASKED: Final = struct.Struct("=BBxxI48s")
"""struct inet_diag_req_v2: family, protocol, states and the socket."""
_FOUND: Final = struct.Struct("=Bxxx48s20x")
"""struct inet_diag_msg: family and the socket."""
_SOCKET: Final = struct.Struct(">HH16s16s12x")
"""struct inet_diag_sockid: the ports and the addresses of both ends."""
_MARK: Final = 15  # INET_DIAG_MARK


@dataclasses.dataclass(frozen=True, slots=True)
class Socket:
    connection: OpenConnection
    family: int
    raw: bytes
    """As the kernel names it, with a cookie that no other socket has."""


def find() -> tuple[Socket, ...]:
    """Return the sockets of both ends of these connections.

    An application's end is told as if it were the client's: it has the mark of the proxy, too.
    Raises SystemRefusedError if the kernel refuses.
    """
    return tuple(one for family in (socket.AF_INET, socket.AF_INET6) for one in _dumped(family))


def end(those: Collection[OpenConnection]) -> int:
    """End those that are still open, for both ends. Return how many that were.

    Raises SystemRefusedError if the kernel refuses.
    """
    return sum(_destroy(one) for one in find() if one.connection in those)


def _dumped(family: int) -> Iterator[Socket]:
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, _OPEN, bytes(48))
    with _asking(_BY_FAMILY, NLM_F_REQUEST | _DUMP, asked) as netlink:
        while True:
            for kind, body in messages(netlink.recv(1 << 16)):
                if kind == DONE:
                    return
                if kind == ERROR:
                    raise _refused("list connections", body)
                if found := of_message(body):
                    yield found


def of_message(body: bytes) -> Socket | None:
    """Return the socket of an ``inet_diag_msg``; None if no proxy has opened it. Pure."""
    if len(body) < _FOUND.size:
        return None
    mark = dict(attributes(body[_FOUND.size :])).get(_MARK, b"")
    if int.from_bytes(mark, sys.byteorder) != PROXY_INBOUND_MARK:
        return None
    family, raw = _FOUND.unpack_from(body)
    client_port, port, client, server = _SOCKET.unpack(raw)
    ends = _address(family, client), client_port, _address(family, server), port
    return Socket(OpenConnection(*ends), family, raw)


def _address(family: int, raw: bytes) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(raw[:4]))
    found = ipaddress.IPv6Address(raw)
    return str(found.ipv4_mapped or found)


def _destroy(one: Socket) -> bool:
    """Return whether it was still there."""
    asked = _ASKED.pack(one.family, socket.IPPROTO_TCP, _ANY, one.raw)
    with _asking(_DESTROY, NLM_F_REQUEST | NLM_F_ACK, asked) as netlink:
        for kind, body in messages(netlink.recv(1 << 16)):
            if kind == ERROR and (code := _code(body)):
                if code == errno.ENOENT:
                    return False
                raise _refused("end a connection", body)
    return True


def _asking(kind: int, flags: int, body: bytes) -> socket.socket:
    """Return a socket to which an answer comes. The caller closes it."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
    netlink.settimeout(5)
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
    return netlink


def _code(body: bytes) -> int:
    return -struct.unpack_from("=i", body)[0]


def _refused(what: str, body: bytes) -> SystemRefusedError:
    return SystemRefusedError(f"the kernel refuses to {what}: {os.strerror(_code(body))}")
