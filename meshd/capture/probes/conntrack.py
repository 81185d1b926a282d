"""Who answers a connection, as the kernel's connection tracking of one namespace has it.

``linux/netfilter/nfnetlink_conntrack.h`` has the numbers.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import nfnetlink

_ORIGINAL, _REPLY = 1, 2
_STATE_OF_PROTOCOL, _OF_TCP, _STATE = 4, 1, 1  # CTA_PROTOINFO, _TCP, _TCP_STATE
_NEVER_ESTABLISHED: Final = (b"\1", b"\2", b"\x08")
"""SYN_SENT, SYN_RECV and CLOSE of ``linux/netfilter/nf_conntrack_tcp.h``."""
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCE_AND_DESTINATION: Final = {4: (1, 2), 6: (3, 4)}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_FILTER, _ORIGINAL_FLAGS = 25, 1  # CTA_FILTER, CTA_FILTER_ORIG_FLAGS
_LIKE: Final = struct.pack("=I", 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5)
"""Compared are the destination's address, the protocol and both ports: not the source's address."""

Attributes = Mapping[int, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """One end of a connection."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else self.address_and_port

    @property
    def address_and_port(self) -> str:
        return f"{self.address}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Flow:
    """The packets of one direction of a TCP connection, as they were sent."""

    source: End
    destination: End


class Connections:
    """Those of the namespace in which the thread is when this is made."""

    def __init__(self) -> None:
        self._socket = nfnetlink.asking_socket()

    def close(self) -> None:
        self._socket.close()

    def answerer(self, flow: Flow) -> End | None:
        """Return the answering end; None if it is not tracked. Raises SystemRefusedError."""
        family, asked = _tuple_of(flow)
        for kind, body in nfnetlink.ask_conntrack(self._socket, family, asked):
            if kind == nfnetlink.ERROR:
                if _code(body) == errno.ENOENT:
                    return None
                raise _refused(body)
            return _source(_read(body).get(_REPLY, b""))
        return None

    def answerers_from(self, flow: Flow) -> list[End]:
        """Return answering ends, where the source's address may have been translated on the way, or
        the connection may be in a foreign zone. The kernel looks at its whole table, and kernels
        before 5.8 hand out all of it. A connection that came about is a stranger's. Raises
        SystemRefusedError."""
        family, asked = _tuple_of(flow)
        asked += nfnetlink.nest(_FILTER, nfnetlink.attribute(_ORIGINAL_FLAGS, _LIKE))
        answerers: list[End] = []
        for kind, body in nfnetlink.ask_conntrack(self._socket, family, asked, several=True):
            if kind == nfnetlink.ERROR:
                raise _refused(body)
            found = _read(body)
            if _state(found) not in _NEVER_ESTABLISHED:
                continue
            source, destination = _ends(found.get(_ORIGINAL, b""))
            if destination == flow.destination and source and source.port == flow.source.port:
                answering = _source(found.get(_REPLY, b""))
                if answering:
                    answerers.append(answering)
        return answerers


def _code(error: bytes) -> int:
    return -struct.unpack_from("=i", error)[0]


def _refused(error: bytes) -> SystemRefusedError:
    return SystemRefusedError(f"cannot read tracked connections: {os.strerror(_code(error))}")


def _tuple_of(flow: Flow) -> tuple[int, bytes]:
    """Return the family and the attribute CTA_TUPLE_ORIG."""
    source, destination = (
        ipaddress.ip_address(end.address) for end in (flow.source, flow.destination)
    )
    of_source, of_destination = _SOURCE_AND_DESTINATION[source.version]
    addresses = nfnetlink.attribute(of_source, source.packed) + nfnetlink.attribute(
        of_destination, destination.packed
    )
    protocol = (
        nfnetlink.attribute(_NUMBER, bytes([socket.IPPROTO_TCP]))
        + nfnetlink.attribute(_SOURCE_PORT, struct.pack(">H", flow.source.port))
        + nfnetlink.attribute(_DESTINATION_PORT, struct.pack(">H", flow.destination.port))
    )
    asked = nfnetlink.nest(_ADDRESSES, addresses) + nfnetlink.nest(_PROTOCOL, protocol)
    return _FAMILY[source.version], nfnetlink.nest(_ORIGINAL, asked)


def _read(body: bytes) -> Attributes:
    return dict(nfnetlink.attributes(body[nfnetlink.GENERIC_SIZE :]))


def _state(connection: Attributes) -> bytes:
    of_protocol = dict(nfnetlink.attributes(connection.get(_STATE_OF_PROTOCOL, b"")))
    return dict(nfnetlink.attributes(of_protocol.get(_OF_TCP, b""))).get(_STATE, b"")


def _source(half: bytes) -> End | None:
    return _ends(half)[0]


def _ends(half: bytes) -> tuple[End | None, End | None]:
    """Return the ends of CTA_TUPLE_ORIG or CTA_TUPLE_REPLY, if it is one of TCP."""
    found = dict(nfnetlink.attributes(half))
    addresses = dict(nfnetlink.attributes(found.get(_ADDRESSES, b"")))
    protocol = dict(nfnetlink.attributes(found.get(_PROTOCOL, b"")))
    if protocol.get(_NUMBER) != bytes([socket.IPPROTO_TCP]):
        return None, None
    kinds = _SOURCE_AND_DESTINATION[6 if 3 in addresses else 4]
    ports = (_SOURCE_PORT, _DESTINATION_PORT)
    ends = (
        End(str(ipaddress.ip_address(addresses[kind])), int.from_bytes(protocol[port]))
        for kind, port in zip(kinds, ports, strict=True)
    )
    return next(ends), next(ends)
