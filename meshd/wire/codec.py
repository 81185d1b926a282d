"""Converts a message to bytes, and bytes to a message.

A frame is four bytes of length, big-endian, and that many bytes of MessagePack. Every message is a
tagged struct; an unknown tag or a wrong field is an error for the connection, not the process.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from meshd.base.errors import UNDECODABLE, InvalidInputError
from meshd.wire import (
    answers,
    certificates,
    children,
    configuring,
    joining,
    looking,
    nodes,
    placing,
    pods,
    registering,
    sharing,
    status,
    tokens,
)
from meshd.wire.message import Message

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes. Larger frames are refused before they are read."""
_HEADER: Final = struct.Struct(">I")
HEADER_SIZE: Final = _HEADER.size

AnyMessage = (
    answers.Messages
    | placing.Messages
    | certificates.Messages
    | registering.Messages
    | configuring.Messages
    | status.Messages
    | looking.Messages
    | children.Messages
    | pods.Messages
    | tokens.Messages
    | joining.Messages
    | nodes.Messages
    | sharing.Messages
)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """Return one frame."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """Return the number of bytes after the header. Raises InvalidInputError if they are too
    many."""
    (size,) = _HEADER.unpack(header)
    if size > MAX_FRAME:
        raise InvalidInputError(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
    return size


def decode(body: bytes) -> AnyMessage:
    """Raises InvalidInputError when the bytes are not a message that we know."""
    try:
        return _decoder.decode(body)
    except UNDECODABLE as error:
        raise InvalidInputError(f"not a message of this version of meshd: {error}") from None
