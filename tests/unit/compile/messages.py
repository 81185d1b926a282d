"""Looks into Envoy's messages, also into those that are packed into others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import symbol_database
from google.protobuf.message import DecodeError, Message


def opened(message: Any) -> Message:
    """What is packed into it, if it is known."""
    if message.DESCRIPTOR.full_name != "google.protobuf.Any":
        return message
    try:
        kind = symbol_database.Default().GetSymbol(message.TypeName())
        found = kind()
        message.Unpack(found)
    except (KeyError, DecodeError):
        return message
    return found


def messages_in(message: Message) -> Iterator[Any]:
    """It, and all that are part of it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            parts = [one for one in value.values() if isinstance(one, Message)]
        else:
            parts = value if field.is_repeated else [value]
        for part in parts:
            yield from messages_in(opened(part))
