"""Services whose endpoints are names of other services of the mesh. Pure.

An ExternalName, or an entry with resolution DNS, may name a service whose address only the mesh
has: no resolver could lead there, so such a service has the other one's endpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord

_BY_NAME: Final = frozenset({Resolution.DNS, Resolution.DNS_ROUND_ROBIN})
_MOST: Final = 8
"""Names that lead to names, one after the other."""
_MOST_ENDPOINTS: Final = 16_384
"""Of one service by way of names: each step could multiply them by as many as an entry lists."""


def followed(record: ServiceRecord, known: Mapping[str, ServiceRecord]) -> ServiceRecord:
    """Return the record with endpoints of the services it names; ``known`` are records by host.

    Hosts are as seen from the record's namespace; names outside the mesh stay as they are.
    """
    for _ in range(_MOST):
        if record.resolution not in _BY_NAME or not record.endpoints:
            return record
        targets = [known.get(end.address) for end in record.endpoints]
        named = [one for one in targets if one is not None and one.host != record.host]
        if any(one.closed for one in named):
            return msgspec.structs.replace(record, closed=True)
        if len(named) < len(targets) or any(_is_outside(one) for one in named):
            return record
        if _count(record, named) > _MOST_ENDPOINTS:
            return record
        record = _with_endpoints_of(record, named)
    return record


def _count(record: ServiceRecord, targets: list[ServiceRecord]) -> int:
    """Return how many endpoints the service would have."""
    return sum(
        len(target.endpoints_by_port.get(end.port, ()))
        for end, target in zip(record.endpoints, targets, strict=True)
    )


def _is_outside(target: ServiceRecord) -> bool:
    """Return whether only the target's clients know where it is."""
    return target.resolution in {Resolution.NONE, Resolution.DYNAMIC_DNS} and not target.headless


def _with_endpoints_of(record: ServiceRecord, targets: list[ServiceRecord]) -> ServiceRecord:
    endpoints = tuple(
        place
        for end, target in zip(record.endpoints, targets, strict=True)
        for place in _places(end, target)
    )
    further = dict(_further_ports(record, targets)) if record.name else {}
    return msgspec.structs.replace(
        record,
        resolution=targets[0].resolution if not targets[0].headless else Resolution.STATIC,
        external=targets[0].external,
        ports=(*record.ports, *further.values()),
        endpoints=(
            *endpoints,
            *(end for end in targets[0].endpoints if end.service_port in further),
        ),
    )


def _places(end: Endpoint, target: ServiceRecord) -> Iterator[Endpoint]:
    for place in target.endpoints_by_port.get(end.port, ()):
        yield msgspec.structs.replace(place, service_port=end.service_port)


def _further_ports(
    alias: ServiceRecord, targets: list[ServiceRecord]
) -> Iterator[tuple[int, Port]]:
    """Yield the target's ports that an alias does not list: an alias has all ports."""
    listed = {port.number for port in alias.ports}
    for port in targets[0].ports:
        if port.number not in listed:
            yield port.number, port
