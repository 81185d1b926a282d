"""Asks the kernel by netlink for what the iptables programs cannot do.

This is to tell the last change of nf_tables and the process that made it, and to remove empty
tables. The numbers come from Linux's ``nfnetlink.h`` and ``nf_tables.h``.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.base.printable import printable

NETLINK_NETFILTER: Final = 12
NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
_NLM_F_DUMP: Final = 0x300
ERROR: Final = 2
"""The message type NLMSG_ERROR."""
DONE: Final = 3
"""The message type NLMSG_DONE."""
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_GETCONNTRACK: Final = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELTABLE: Final = _NFTABLES << 8 | 2
_NEWGEN: Final = _NFTABLES << 8 | 15
_GETGEN: Final = _NFTABLES << 8 | 16
_GROUP: Final = 1 << 6  # NFNLGRP_NFTABLES
_BATCH_GENID: Final = 1
_TABLE_NAME: Final = 1
_GEN_ID: Final = 1
_GEN_PROC_PID: Final = 2
_GEN_PROC_NAME: Final = 3
_TYPE: Final = 0x3FFF  # NLA_TYPE_MASK
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct(">BBH")
GENERIC_SIZE: Final = _GENERIC.size
_NESTED: Final = 0x8000  # NLA_F_NESTED
_questions: Final = itertools.count(2)
"""Sequence numbers of questions. Messages with a socket of their own for one answer have 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One transaction of nf_tables, and the process that made it."""

    generation: int
    """The generation of the namespace's rules from this change on."""
    program: str
    process: int


def generation() -> int:
    """Return a number that differs after each change of any nf_tables rule of this namespace."""
    with asking_socket() as netlink:
        netlink.send(message(_GETGEN, NLM_F_REQUEST, 0, 0))
        answer = netlink.recv(1 << 16)
    return next((change.generation for change in changes(answer)), 0)


def listening_socket() -> socket.socket:
    """Return a socket that receives each change of this namespace's rules. The caller closes it."""
    netlink = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
    )
    netlink.bind((0, _GROUP))
    return netlink


def changes(part: bytes) -> Iterator[Change]:
    """Yield the transactions whose ends are among these messages. Pure."""
    for kind, body in messages(part):
        if kind == _NEWGEN:
            found = dict(attributes(body[_GENERIC.size :]))
            name = found.get(_GEN_PROC_NAME, b"").partition(b"\0")[0]
            yield Change(
                generation=_number(found.get(_GEN_ID)),
                program=printable(name.decode("utf-8", "replace")),
                process=_number(found.get(_GEN_PROC_PID)),
            )


def messages(part: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, _, body in _numbered(part):
        yield kind, body


def _numbered(part: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(part) >= _HEADER.size:
        length, kind, _, number, _ = _HEADER.unpack_from(part)
        yield kind, number, part[_HEADER.size : length]
        part = part[max(_HEADER.size, (length + 3) & ~3) :]


def attributes(part: bytes) -> Iterator[tuple[int, bytes]]:
    while len(part) >= 4:
        length, kind = struct.unpack_from("=HH", part)
        yield kind & _TYPE, part[4:length]
        part = part[max(4, (length + 3) & ~3) :]


def dump(what: int) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yield the family and the attributes of each chain, rule and so on, of all families.

    Raises SystemRefusedError if the kernel refuses.
    """
    with asking_socket() as netlink:
        netlink.send(message(_NFTABLES << 8 | what, NLM_F_REQUEST | _NLM_F_DUMP, 0, 0))
        while True:
            for kind, body in messages(netlink.recv(1 << 16)):
                if kind == DONE:
                    return
                if kind == ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise SystemRefusedError(f"cannot read nf_tables: {os.strerror(code)}")
                yield body[0], dict(attributes(body[_GENERIC.size :]))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"")


def delete_tables(tables: Sequence[tuple[int, str]], as_of: int) -> bool:
    """Delete tables (family, name) with all their chains, in one transaction.

    Returns False, and deletes nothing, if any rule has changed since generation ``as_of``. Raises
    SystemRefusedError if the kernel refuses.
    """
    batch = message(_BATCH_BEGIN, NLM_F_REQUEST, 0, _NFTABLES, attribute(_BATCH_GENID, _u32(as_of)))
    for index, (family, name) in enumerate(tables, start=1):
        # Kernels before 6.10 acknowledge the messages within a batch, but not its end.
        flags = NLM_F_REQUEST | (NLM_F_ACK if index == len(tables) else 0)
        table_name = attribute(_TABLE_NAME, name.encode() + b"\0")
        batch += message(_DELTABLE, flags, family, 0, table_name)
    batch += message(_BATCH_END, NLM_F_REQUEST, 0, _NFTABLES)
    with asking_socket() as netlink:
        netlink.send(batch)
        code = error_code(netlink.recv(1 << 16))
    if code == errno.ERESTART:
        return False
    if code:
        raise SystemRefusedError(f"cannot remove empty tables: {os.strerror(code)}")
    return True


def ask_conntrack(
    netlink: socket.socket, family: int, asked: bytes, *, several: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Yield the kinds and bodies of answers about one connection, or about ``several`` like it.

    Answers to an earlier question that are left on the socket are skipped.
    """
    number = next(_questions) & 0xFFFFFFFF
    flags = NLM_F_REQUEST | _NLM_F_DUMP if several else NLM_F_REQUEST
    netlink.send(message(_GETCONNTRACK, flags, family, 0, asked, number=number))
    while True:
        for kind, answered, body in _numbered(netlink.recv(1 << 16)):
            if answered != number:
                continue
            if kind == DONE:
                return
            yield kind, body
            if not several or kind == ERROR:
                return


def asking_socket() -> socket.socket:
    """Return a socket for questions about the thread's namespace. The caller closes it."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    netlink.bind((0, 0))
    netlink.settimeout(5)
    return netlink


def error_code(answer: bytes) -> int:
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    return -struct.unpack_from("=i", answer, _HEADER.size)[0] if kind == ERROR else 0


def message(
    kind: int, flags: int, family: int, resource: int, attributes: bytes = b"", *, number: int = 1
) -> bytes:
    body = _GENERIC.pack(family, 0, resource) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def nest(kind: int, attributes: bytes) -> bytes:
    """Return an attribute that holds other attributes."""
    return attribute(kind | _NESTED, attributes)


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)
