"""Frames of HTTP/2 as no well-behaved client sends them (RFC 9113, and RFC 7541 for headers)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

DATA, HEADERS, SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")
_USUAL: Final = {b":method": b"GET", b":scheme": b"http", b":authority": b"server.test"}


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header that is not indexed."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """Return its length, an integer with a prefix of seven bits, and the text."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, digits = len(text) - 127, [127]
    while rest >= 128:
        digits.append(rest % 128 + 128)
        rest //= 128
    return bytes([*digits, rest]) + text


def request(
    path: bytes, *headers: Header, body: bytes | None = None, trailers: Iterable[Header] = ()
) -> bytes:
    """Return a connection's first request; headers of usual names replace the usual ones, and an
    empty one takes it away."""
    named = dict(headers)
    pseudo = _USUAL | {b":path": path} | {k: v for k, v in named.items() if k.startswith(b":")}
    fields = [(name, value) for name, value in pseudo.items() if value]
    fields += [(name, value) for name, value in headers if not name.startswith(b":")]
    last = body is None and not trailers
    made = _headers(fields, last=last)
    if body is not None:
        made += frame(DATA, 0 if trailers else _END_STREAM, 1, body)
    return PREFACE + made + (_headers(trailers, last=True) if trailers else b"")


def _headers(fields: Iterable[Header], *, last: bool) -> bytes:
    payload = b"".join(literal(name, value) for name, value in fields)
    return frame(HEADERS, _END_HEADERS | (_END_STREAM if last else 0), 1, payload)
