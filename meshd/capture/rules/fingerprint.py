"""The namespace's fingerprint: cheap to read, and different as soon as a rule was changed.

It costs some tens of microseconds, so that it can be read for each workload all the time; the rules
themselves are read only when it changed. It acts on the namespace in which the thread is.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import socket
import struct
from pathlib import Path
from typing import Final

from meshd.capture.rules import inside, nfnetlink
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import TABLES
from meshd.capture.rules.tables import legacy_table_names

_GET_INFO: Final = 64  # IPT_SO_GET_INFO, IP6T_SO_GET_INFO: linux/netfilter_ipv4/ip_tables.h
_INFO_SIZE: Final = 84
_GET_ENTRIES: Final = 65  # IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES
_ENTRIES_HEADER: Final = 40
_ENTRY: Final = {socket.IPPROTO_IP: (90, 96), socket.IPPROTO_IPV6: (142, 152)}
"""struct ipt_entry and struct ip6t_entry: where the offset of the next one is, and the counters."""
_COUNTERS: Final = 16
_RTM_GETRULE: Final = 34
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_FRESH_GENERATION: Final = 1

_LEVEL: Final = {
    Family.IPV4: (socket.AF_INET, socket.IPPROTO_IP),
    Family.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6),
}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    generation: int
    """nf_tables' own count of changes."""
    legacy: tuple[bytes, ...]
    """Of each legacy table its sizes and chain offsets, and a digest of its rules, since one may be
    replaced by another of the same size."""
    routing_rules: bytes

    @property
    def is_fresh(self) -> bool:
        """Return whether no rule of either kind was ever made here."""
        return self.generation <= _FRESH_GENERATION and not self.legacy


def take() -> Fingerprint:
    return Fingerprint(nfnetlink.generation(), tuple(_legacy()), _routing_rules())


def of(namespace: Path) -> Fingerprint:
    """Raises NotReadyError when it is gone."""
    with inside.entered(namespace):
        return take()


def _legacy() -> list[bytes]:
    infos: list[bytes] = []
    for family in Family:
        names = [name for name in legacy_table_names(family) if name in TABLES]
        if not names:
            continue
        address_family, level = _LEVEL[family]
        with contextlib.closing(
            socket.socket(address_family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        ) as raw:
            infos += [_table_info(raw, level, name) for name in names]
    return infos


def _table_info(raw: socket.socket, level: int, name: str) -> bytes:
    buffer = ctypes.create_string_buffer(name.encode(), _INFO_SIZE)
    size = ctypes.c_uint32(_INFO_SIZE)
    _libc.getsockopt(raw.fileno(), level, _GET_INFO, buffer, ctypes.byref(size))
    return buffer.raw + _digest(raw, level, name, struct.unpack_from("=I", buffer, 80)[0])


def _digest(raw: socket.socket, level: int, name: str, size: int) -> bytes:
    """Return a digest of the rules, without counters."""
    text = struct.pack("=32sI4x", name.encode(), size) + bytes(size)
    buffer = ctypes.create_string_buffer(text, len(text))
    length = ctypes.c_uint32(len(text))
    _libc.getsockopt(raw.fileno(), level, _GET_ENTRIES, buffer, ctypes.byref(length))
    return hashlib.sha256(without_counters(buffer.raw[_ENTRIES_HEADER:], *_ENTRY[level])).digest()


def without_counters(entries: bytes, next_at: int, counters_at: int) -> bytes:
    """Return the entries without counters. Pure."""
    result = bytearray(entries)
    position = 0
    while position + counters_at + _COUNTERS <= len(entries):
        counters = position + counters_at
        result[counters : counters + _COUNTERS] = bytes(_COUNTERS)
        (length,) = struct.unpack_from("=H", entries, position + next_at)
        position += length or len(entries)
    return bytes(result)


def _routing_rules() -> bytes:
    parts: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        own_port = struct.pack("=I", netlink.getsockname()[0])
        netlink.send(struct.pack("=IHHIIB11x", 28, _RTM_GETRULE, _DUMP, 1, 0, 0))
        while True:
            part = netlink.recv(1 << 16)
            # Each header names the port of the socket that asked: not part of what was answered.
            parts.append(part.replace(own_port, b""))
            if _ends(part):
                return b"".join(parts)


def _ends(part: bytes) -> bool:
    position = 0
    while position + 16 <= len(part):
        length, kind = struct.unpack_from("=IH", part, position)
        if kind in (2, 3):  # NLMSG_ERROR, NLMSG_DONE
            return True
        position += max(16, (length + 3) & ~3)
    return False
