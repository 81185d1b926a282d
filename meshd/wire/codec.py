"""Converts a message to bytes, and bytes to a message.

A frame is four bytes of length, big-endian, and that many bytes of MessagePack. Every message is a
tagged struct; an unknown tag or a wrong field is an error for the connection, not the process.
"""

from __future__ import annotations

import struct
from typing import Final, TypeVar

import msgspec

from meshd.base.errors import UNDECODABLE, InvalidInputError
from meshd.base.printable import printable
from meshd.wire import (
    answers,
    certificates,
    children,
    cluster,
    configuring,
    ending,
    enrolling,
    joining,
    locating,
    looking,
    nodes,
    placing,
    pods,
    registering,
    sharing,
    status,
    tokens,
    unit_changes,
)
from meshd.wire.message import Message

T = TypeVar("T")
MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes. Larger frames are refused before they are read."""
_HEADER: Final = struct.Struct(">I")
HEADER_SIZE: Final = _HEADER.size

AnyMessage = (
    answers.Messages
    | placing.Messages
    | certificates.Messages
    | unit_changes.Messages
    | ending.Messages
    | registering.Messages
    | cluster.Messages
    | locating.Messages
    | enrolling.Messages
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
ANY: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """Return one frame. Raises InvalidInputError for a text that cannot be written as UTF-8, as an
    argument or the name of a file may be one."""
    try:
        body = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise InvalidInputError(f'"{printable(error.object)}" is not UTF-8 text') from None
    return _HEADER.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """Return the number of bytes after the header. Raises InvalidInputError if they are too
    many."""
    (size,) = _HEADER.unpack(header)
    if size > MAX_FRAME:
        raise InvalidInputError(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
    return size


def decode(body: bytes, takes: msgspec.msgpack.Decoder[T]) -> T:
    """Raises InvalidInputError when the bytes are not a message that is taken here."""
    try:
        return takes.decode(body)
    except UNDECODABLE as error:
        raise InvalidInputError(
            f"not a message of this version of meshd to this process: {error}"
        ) from None
