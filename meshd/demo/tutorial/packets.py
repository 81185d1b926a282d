"""Parses packet captures: pcap(5), streams of bytes, TLS records. Pure.

Ethernet, IPv4 and TCP only: what the testbed's wires carry between two pods.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Iterator
from typing import Final

from meshd.base.errors import InvalidInputError

_LITTLE_ENDIAN: Final = (0xA1B2C3D4, 0xA1B23C4D)
_ETHERNET: Final = 1
_IPV4: Final = 0x0800
_TCP: Final = 6
_RECORD: Final = struct.Struct(">BHH")
_CONTENT_TYPES: Final = range(20, 24)
"""RFC 8446, 5.1: change_cipher_spec, alert, handshake, application_data."""
_VERSIONS: Final = range(0x0301, 0x0304)
_LONGEST_RECORD: Final = 2**14 + 256


@dataclasses.dataclass(frozen=True, slots=True)
class Direction:
    """One side of a connection."""

    source: str
    source_port: int
    destination: str
    destination_port: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Segment:
    direction: Direction
    sequence: int
    payload: bytes


def streams(capture: bytes) -> dict[Direction, bytes]:
    """Return the bytes of each side of each connection, in order and without repetitions.

    Raises InvalidInputError if it is not a capture of ours.
    """
    by_direction: dict[Direction, list[_Segment]] = {}
    for frame in _frames(capture):
        if segment := _segment(frame):
            by_direction.setdefault(segment.direction, []).append(segment)
    return {direction: _joined(segments) for direction, segments in by_direction.items()}


def _frames(capture: bytes) -> Iterator[bytes]:
    if len(capture) < 24:
        raise InvalidInputError("the packet capture is empty")
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", capture)
    if magic not in _LITTLE_ENDIAN or link != _ETHERNET:
        raise InvalidInputError("the packet capture is not of Ethernet frames in pcap's format")
    offset = 24
    while offset + 16 <= len(capture):
        _, _, length, _ = struct.unpack_from("<IIII", capture, offset)
        frame = capture[offset + 16 : offset + 16 + length]
        if len(frame) < length:
            return  # the last one is still being written
        yield frame
        offset += 16 + length


def _segment(frame: bytes) -> _Segment | None:
    """Return a segment; None if the frame carries no data."""
    if len(frame) < 54 or struct.unpack_from(">H", frame, 12) != (_IPV4,):
        return None
    packet = frame[14:]
    header, length = (packet[0] & 15) * 4, struct.unpack_from(">H", packet, 2)[0]
    if packet[9] != _TCP:
        return None
    tcp = packet[header:length]
    source_port, destination_port, sequence = struct.unpack_from(">HHI", tcp)
    payload = tcp[(tcp[12] >> 4) * 4 :]
    if not payload:
        return None
    source, destination = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    return _Segment(
        Direction(source, source_port, destination, destination_port), sequence, payload
    )


def _joined(segments: list[_Segment]) -> bytes:
    """Join segments; retransmitted bytes count once, sequence numbers start at the first
    segment's."""
    first = segments[0].sequence
    ordered = sorted(segments, key=lambda each: (each.sequence - first + 2**31) % 2**32)
    start = ordered[0].sequence
    data = bytearray()
    for segment in ordered:
        known = len(data) - (segment.sequence - start) % 2**32
        if known < len(segment.payload):
            data += segment.payload[max(known, 0) :]
    return bytes(data)


def tls_records(stream: bytes) -> int | None:
    """Return the number of TLS records in a stream; None if it is anything else."""
    count = offset = 0
    while offset < len(stream):
        if len(stream) - offset < _RECORD.size:
            break  # of the last record only the beginning was seen
        kind, version, length = _RECORD.unpack_from(stream, offset)
        if kind not in _CONTENT_TYPES or version not in _VERSIONS or length > _LONGEST_RECORD:
            return None
        offset += _RECORD.size + length
        count += 1
    return count
