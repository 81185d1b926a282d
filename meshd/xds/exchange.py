"""The values that a delta stream receives, sends and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from meshd.xds.resources import Resource

NO_VERSIONS: Final[Mapping[str, str]] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The parts of a DeltaDiscoveryRequest that we read."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: NO_VERSIONS)
    nonce: str = ""
    """Of the response that it answers, if any."""
    error: str | None = None
    """Why the client refused that response."""


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    type_url: str
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """A refusal. ``final``: the bad resource is known. Otherwise its response is sent in parts."""

    type_url: str
    names: tuple[str, ...]
    reason: str
    final: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """A version that the client refused. It is offered again only on demand."""

    version: str
    reason: str
