"""Packs compiled messages as resources, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshd.compile.compiler import Compiled
from meshd.model.pool import Pool
from meshd.xds.resources import Resource, Resources, pack


class Packer:
    """Packs messages; the same message gives the same resource again."""

    def __init__(self) -> None:
        self._packed: dict[int, tuple[Any, Resource]] = {}

    def pack(self, compiled: Mapping[Pool, Compiled]) -> dict[Pool, Resources]:
        now: dict[int, tuple[Any, Resource]] = {}

        def packed(of_pool: Compiled) -> Iterator[Resource]:
            for messages in of_pool.values():
                for name, message in messages.items():
                    known = self._packed.get(id(message))
                    now[id(message)] = known or (message, pack(name, message))
                    yield now[id(message)][1]

        found = {pool: Resources.of(packed(of_pool)) for pool, of_pool in compiled.items()}
        self._packed = now
        return found
