"""Bounds what a node may ask for on its stream, which a server remembers for as long as it lasts.

A node asks for all resources of a few types, and says once what it has of each. Names of single
resources, more types, and more versions would grow without end.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from meshd.xds.exchange import Request
from meshd.xds.protocol import DeltaRequest

EVERYTHING: Final = "*"
MOST_TYPES: Final = 64
"""Types of one node. There are a dozen kinds of objects."""
_LONGEST_TYPE: Final = 256
"""Characters of a type's URL."""


class Asking:
    """The types that one node has asked for."""

    def __init__(self) -> None:
        self._types: set[str] = set()

    def bounded(self, request: Request) -> Request | None:
        """Return the part of a request that is heard; None: nothing is."""
        url = request.type_url
        first = url not in self._types
        if first and (len(self._types) >= MOST_TYPES or len(url) > _LONGEST_TYPE):
            return None
        self._types.add(url)
        return dataclasses.replace(
            request,
            subscribe=_everything(request.subscribe),
            unsubscribe=_everything(request.unsubscribe),
            initial_versions=request.initial_versions if first else {},
        )


def _everything(names: tuple[str, ...]) -> tuple[str, ...]:
    return (EVERYTHING,) if EVERYTHING in names else ()


def is_plain(message: DeltaRequest) -> bool:
    """Return whether a request only accepts a response, as most do."""
    return not (
        message.resource_names_subscribe
        or message.resource_names_unsubscribe
        or message.initial_resource_versions
        or message.HasField("error_detail")
    )
