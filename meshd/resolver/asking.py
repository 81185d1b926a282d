"""Asks the resolver whether it has a name: one question over UDP, RFC 1035."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from typing import Final

_HEADER: Final = struct.Struct(">6H")
"""Number, flags, and how many questions, answers, authorities and additions follow."""
_A_IN: Final = struct.pack(">2H", 1, 1)
_RECURSE: Final = 0x0100
_CODE: Final = 0x000F


async def knows(port: int, name: str, address: str = "127.0.0.1", patience: float = 0.2) -> bool:
    """Return whether the resolver on a loopback address has an IPv4 address for the name.

    No answer within ``patience`` seconds counts as no.
    """
    loop = asyncio.get_running_loop()
    number = secrets.randbits(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect((address, port))
            asking.send(question(number, name))
            async with asyncio.timeout(patience):
                return is_found(await loop.sock_recv(asking, 512), number)
        except OSError:  # a timeout is one, too
            return False


def question(number: int, name: str) -> bytes:
    labels = (label.encode() for label in name.rstrip(".").split("."))
    host = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + host + _A_IN


def is_found(answer: bytes, number: int) -> bool:
    """Return whether the message answers the question with an address."""
    if len(answer) < _HEADER.size:
        return False
    told, flags, _, answers, _, _ = _HEADER.unpack_from(answer)
    return told == number and not flags & _CODE and answers > 0
