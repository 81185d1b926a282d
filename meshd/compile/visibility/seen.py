"""What clients see of services, told by identity where it is the same for many of them."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from meshd.compile.upstream.destination_rules import RuleSet
from meshd.model.service import Place, ServiceRecord
from meshd.model.snapshot import MeshOptions


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """The options of a mesh, told by identity."""

    options: MeshOptions


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A host as clients see it, without what only its endpoints depend on.

    The same where the same is seen, in whichever scope, so that it is told by identity.
    """

    host: str
    record: ServiceRecord | None
    """Without endpoints. None: they see no such service."""
    is_known: bool
    """There is such a service, for somebody."""
    rules: RuleSet
    of_copies: RuleSet
    """The rules for copies of requests."""


class SeenServices(NamedTuple):
    """The services that clients see."""

    by_host: Mapping[str, ServiceRecord]
    by_port: Mapping[int, tuple[ServiceRecord, ...]]
    shapes: tuple[ServiceRecord, ...]


def seen_services(
    by_host: Mapping[str, ServiceRecord], shapes: Mapping[Place, ServiceRecord]
) -> SeenServices:
    """Return the services that clients see; ``shapes``: those of all services."""
    by_port: dict[int, list[ServiceRecord]] = defaultdict(list)
    for record in by_host.values():
        for number in record.protocols:
            by_port[number].append(record)
    return SeenServices(
        by_host,
        {number: tuple(records) for number, records in by_port.items()},
        tuple(shapes[record.place] for record in by_host.values()),
    )
