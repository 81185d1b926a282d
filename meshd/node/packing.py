"""Packs compiled messages as resources, each once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from meshd.compile.compiled import Compiled, Kind, Messages, Printed
from meshd.compile.envoy.printed_listeners import PrintedListener
from meshd.compile.envoy.printed_messages import PrintedMessage
from meshd.compile.envoy.printed_tables import PrintedTable
from meshd.model.pool import Pool
from meshd.xds.resources import Detour, Resource, Resources, pack, pack_bytes, type_url


@dataclasses.dataclass(frozen=True, slots=True)
class _Packed:
    """The messages of one kind, and what was made of them."""

    messages: Messages
    resources: Mapping[str, Resource]


_NOTHING: Final = _Packed({}, {})


class Packer:
    """Packs messages; the same message gives the same resource again.

    The same mapping of a kind's messages gives the same resources, without a look at each.
    """

    def __init__(self) -> None:
        self._packed: dict[tuple[Pool, Kind], _Packed] = {}

    def pack(self, compiled: Mapping[Pool, Compiled]) -> dict[Pool, Resources]:
        now = {
            (pool, kind): self._pack(self._packed.get((pool, kind), _NOTHING), messages)
            for pool, of_pool in compiled.items()
            for kind, messages in of_pool.items()
        }
        self._packed = now
        return {
            pool: Resources({type_url(kind.value): now[pool, kind].resources for kind in of_pool})
            for pool, of_pool in compiled.items()
        }

    def _pack(self, before: _Packed, messages: Messages) -> _Packed:
        if before.messages is messages:
            return before
        resources = {
            name: before.resources[name]
            if before.messages.get(name) is message
            else _resource(name, message)
            for name, message in messages.items()
        }
        return _Packed(messages, resources)


def _resource(name: str, printed: Printed) -> Resource:
    match printed:
        case PrintedTable():
            return Resource(type_url(Kind.ROUTE.value), name, printed.version, printed)
        case PrintedListener():
            listener = type_url(Kind.LISTENER.value)
            resource = Resource(listener, name, printed.version, printed, internal=True)
            return dataclasses.replace(resource, behind=printed.behind, left=printed.left)
        case PrintedMessage():
            return packed(printed)
        case _:
            return pack(name, printed)


def packed(printed: PrintedMessage) -> Resource:
    name = printed.name
    resource = pack_bytes(name, printed.kind, printed.body)
    if not printed.listeners:
        return resource
    detour = Detour(printed.listeners, pack_bytes(name, printed.kind, printed.directly))
    return dataclasses.replace(resource, detour=detour)
