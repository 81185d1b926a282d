"""The protocols that a TLS client offers, read from its first bytes. Pure.

RFC 8446, 4.1.2 and 5.1; RFC 7301 for ALPN. A ClientHello may be spread over records.
"""

from __future__ import annotations

from typing import Final

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_ALPN: Final = 16
MAX_BYTES: Final = 32 * 1024
_MAX_RECORDS: Final = 1024
"""A longer ClientHello, or one in more records, is none that we answer: it is looked at again with
each piece that comes."""


class NotTlsError(ValueError):
    """These bytes do not begin a TLS connection."""


def offered_protocols(data: bytes) -> tuple[str, ...] | None:
    """ALPN names in the client's order; None while the ClientHello is not complete.

    Raises NotTlsError.
    """
    message = _handshake(data)
    if message is None:
        return None
    reader = _Reader(message)
    reader.skip(2 + 32)  # version, random
    reader.take(reader.number(1))  # session
    reader.take(reader.number(2))  # cipher suites
    reader.take(reader.number(1))  # compression methods
    if reader.left == 0:
        return ()
    extensions = _Reader(reader.take(reader.number(2)))
    while extensions.left:
        kind = extensions.number(2)
        body = extensions.take(extensions.number(2))
        if kind == _ALPN:
            return _names(body)
    return ()


def _handshake(data: bytes) -> bytes | None:
    """The body of the ClientHello, put together from records."""
    joined = b""
    rest = memoryview(data)  # of which a part is no copy
    for _ in range(_MAX_RECORDS):
        if not rest:
            break
        if rest[0] != _HANDSHAKE or (len(rest) > 1 and rest[1] != 3):
            raise NotTlsError("no TLS handshake")
        if len(rest) < 5:
            return None
        length = int.from_bytes(rest[3:5])
        if not length:
            raise NotTlsError("an empty record")  # RFC 8446, section 5.1
        joined += rest[5 : 5 + length]
        rest = rest[5 + length :]
        if joined and joined[0] != _CLIENT_HELLO:
            raise NotTlsError("no ClientHello")
        if len(joined) >= 4 and len(joined) >= 4 + int.from_bytes(joined[1:4]):
            return joined[4 : 4 + int.from_bytes(joined[1:4])]
    if rest or len(data) > MAX_BYTES:
        raise NotTlsError("a ClientHello that does not end")
    return None


def _names(body: bytes) -> tuple[str, ...]:
    whole = _Reader(body)
    reader = _Reader(whole.take(whole.number(2)))
    found: list[str] = []
    while reader.left:
        found.append(reader.take(reader.number(1)).decode("ascii", "replace"))
    return tuple(found)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise NotTlsError("a ClientHello that contradicts itself")
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        self.take(size)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))
