"""Bounds the fields of a request of delta ADS before it is decoded, which takes time for each.

Pure.
"""

from __future__ import annotations

from typing import Final

MOST_FIELDS: Final = 200_000
"""Fields of a message that are not inside another field. A node that comes back names each resource
that it has, of which a large mesh has 100,000."""
_SURE: Final = 2 * 1024 * 1024
"""Bytes of a message that is decoded soon enough, whatever is in it."""
_MOST_OTHERS: Final = 1024 * 1024
"""Bytes of all fields that are neither names nor versions: there may be mappings inside."""
_NAMES_AND_VERSIONS: Final = frozenset({3, 4, 5})
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_fields(message: bytes) -> None:
    """Raises ValueError if a request of delta ADS has more than is taken, or is none.

    See https://protobuf.dev/programming-guides/encoding/.
    """
    if len(message) <= _SURE:
        return
    at = count = others = 0
    while at < len(message):
        tag, at = _number(message, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _number(message, at)
            at += size
            others += 0 if tag >> 3 in _NAMES_AND_VERSIONS else size
        elif kind == _VARINT:
            _, at = _number(message, at)
        elif kind in {_FIXED32, _FIXED64}:
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("not a message")
        count += 1
        if count > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS} names and versions in one request")
        if others > _MOST_OTHERS:
            raise ValueError(f"more than {_MOST_OTHERS} bytes beside names and versions")


def _number(message: bytes, at: int) -> tuple[int, int]:
    """Return a number and the place behind it. Raises ValueError."""
    found = shift = 0
    while shift < 64 and at < len(message):
        byte = message[at]
        at += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, at
        shift += 7
    raise ValueError("not a message")
