"""The two requests to nf_tables that the iptables programs have no word for. Linux's
``nfnetlink.h`` and ``nf_tables.h`` have the numbers."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from meshd.errors import SystemRefusedError

_NETLINK_NETFILTER: Final = 12
_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
_NLMSG_ERROR: Final = 2
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_DELTABLE: Final = _NFTABLES << 8 | 2
_GETGEN: Final = _NFTABLES << 8 | 16
_BATCH_GENID: Final = 1
_TABLE_NAME: Final = 1
_GEN_ID: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct(">BBH")


def generation() -> int:
    """A number that changes with each change of any nf_tables rule of this namespace."""
    with _socket() as netlink:
        netlink.send(_message(_GETGEN, _NLM_F_REQUEST, 0, 0))
        answer = netlink.recv(1 << 16)
    position = _HEADER.size + _GENERIC.size
    while position + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, position)
        if kind == _GEN_ID:
            return struct.unpack_from(">I", answer, position + 4)[0]
        position += max(4, (length + 3) & ~3)
    return 0


def delete_tables(tables: Sequence[tuple[int, str]], as_of: int) -> bool:
    """Take tables (family, name) away with all their chains, at once.

    Not done, and False, if anything at all changed since generation ``as_of``.
    """
    batch = _message(
        _BATCH_BEGIN, _NLM_F_REQUEST, 0, _NFTABLES, _attribute(_BATCH_GENID, _u32(as_of))
    )
    for index, (family, name) in enumerate(tables, start=1):
        # Kernels before 6.10 acknowledge what is within a batch, and not its end.
        flags = _NLM_F_REQUEST | (_NLM_F_ACK if index == len(tables) else 0)
        table_name = _attribute(_TABLE_NAME, name.encode() + b"\0")
        batch += _message(_DELTABLE, flags, family, 0, table_name)
    batch += _message(_BATCH_END, _NLM_F_REQUEST, 0, _NFTABLES)
    with _socket() as netlink:
        netlink.send(batch)
        code = _error_code(netlink.recv(1 << 16))
    if code == errno.ERESTART:
        return False
    if code:
        raise SystemRefusedError(f"cannot remove tables that are empty: {os.strerror(code)}")
    return True


def _socket() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    netlink.bind((0, 0))
    netlink.settimeout(5)
    return netlink


def _error_code(answer: bytes) -> int:
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    return -struct.unpack_from("=i", answer, _HEADER.size)[0] if kind == _NLMSG_ERROR else 0


def _message(kind: int, flags: int, family: int, resource: int, attributes: bytes = b"") -> bytes:
    body = _GENERIC.pack(family, 0, resource) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)
