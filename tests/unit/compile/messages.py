"""Looks into Envoy's messages, also into those that are packed into others."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import symbol_database
from google.protobuf.message import DecodeError, Message

from meshd.compile.compiled import Compiled, Printed
from meshd.compile.envoy.printed_listeners import PrintedListener
from meshd.compile.envoy.printed_messages import PrintedMessage
from meshd.compile.envoy.printed_tables import PrintedTable
from meshd.model.pool import Pool


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


def as_messages(compiled: Mapping[Pool, Compiled]) -> dict[Pool, Compiled]:
    """What is compiled, with what consists of parts as messages."""
    return {
        pool: {
            kind: {name: _message(one) for name, one in found.items()}
            for kind, found in of_pool.items()
        }
        for pool, of_pool in compiled.items()
    }


@functools.cache
def _put_together(printed: PrintedTable | PrintedListener | PrintedMessage) -> Message:
    return printed.message()


def _message(printed: Printed) -> Message:
    """The same message for the same thing, so that identity tells what is new."""
    if isinstance(printed, PrintedTable | PrintedListener | PrintedMessage):
        return _put_together(printed)
    return printed
