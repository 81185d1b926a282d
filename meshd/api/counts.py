"""How many parts an object may have.

What proxies are told grows with each, on every node. The numbers are those of Istio's own schemas
where these have any, and of etcd, in which Kubernetes' objects have to fit; otherwise far more than
people write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from meshd.api.base import Object
from meshd.api.checks import Report
from meshd.api.decode import Path
from meshd.api.gateway.types import Gateway
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.write import to_json
from meshd.base.json_values import Json, JsonObject

MOST: Final = 1024
"""Entries of any list or mapping that has no number of its own here."""
MOST_VALUES: Final = 131_072
"""All that is written in one object, lists and mappings included."""
MOST_BYTES: Final = 1_572_864
"""1.5 MiB, which is what etcd takes in one request: https://etcd.io/docs/latest/dev-guide/limit/."""
MOST_HOST_PORTS: Final = 1024
"""Hosts times ports of one ServiceEntry: each is a cluster, and a host of its own to HTTP."""
MOST_PLACES: Final = 16_384
"""Hosts times ports times endpoints of one ServiceEntry: each is told to proxies by itself."""
MOST_SERVED: Final = 8192
"""Hosts of all servers of a Gateway: proxies tell connections or requests apart by each."""

_NUMBERS: Final[dict[tuple[str, ...], int]] = {
    ("Service", "spec", "ports"): 256,
    ("ServiceEntry", "spec", "hosts"): 256,
    ("ServiceEntry", "spec", "ports"): 256,
    ("ServiceEntry", "spec", "addresses"): 256,
    ("ServiceEntry", "spec", "endpoints"): 8192,
    ("Gateway", "spec", "servers", "hosts"): 4096,
    ("VirtualService", "spec", "gateways"): 256,
    ("VirtualService", "spec", "http", "mirrors"): 32,
    ("DestinationRule", "spec", "subsets"): 512,
}
"""By kind and place, without indices."""


def check_counts(report: Report, found: Object) -> bool:
    """Return whether the object is small enough for its other checks."""
    problems = tuple(too_many(found))
    for path, message in problems:
        report.error(path, message)
    return not problems


def too_many(found: Object) -> Iterator[tuple[Path, str]]:
    """Return the places where an object has more than is accepted, and why."""
    value = to_json(found)
    if (size := len(msgspec.json.encode(value))) > MOST_BYTES:
        yield (), f"{size} bytes, and at most {MOST_BYTES} are taken; split it"
        return
    count = 0
    for place, path, length in _containers(value):
        count += 1 + length
        most = _NUMBERS.get((found.KIND, *place), MOST)
        if length > most:
            yield path, f"{length} entries, and at most {most} are taken; split it"
    if count > MOST_VALUES:
        yield (), f"{count} values, and at most {MOST_VALUES} are taken; split it"
    match found:
        case ServiceEntry():
            yield from _of_entry(found)
        case Gateway():
            yield from _of_gateway(found)
        case _:
            pass


def _containers(value: JsonObject) -> Iterator[tuple[tuple[str, ...], Path, int]]:
    """Yield each list and mapping: where it stands, without and with indices, and its number of
    entries."""
    found: deque[tuple[tuple[str, ...], Path, JsonObject | list[Json]]] = deque([((), (), value)])
    while found:
        place, path, part = found.popleft()
        yield place, path, len(part)
        if isinstance(part, dict):
            for key, one in part.items():
                if isinstance(one, dict | list):
                    found.append(((*place, key), (*path, key), one))
        else:
            for index, one in enumerate(part):
                if isinstance(one, dict | list):
                    found.append((place, (*path, index), one))


def _of_gateway(found: Gateway) -> Iterator[tuple[Path, str]]:
    hosts = sum(len(server.hosts) for server in found.spec.servers)
    if hosts > MOST_SERVED:
        what = f"{hosts} hosts in all servers, and at most {MOST_SERVED} are taken"
        yield ("spec", "servers"), f"{what}; split the Gateway"


def _of_entry(found: ServiceEntry) -> Iterator[tuple[Path, str]]:
    spec = found.spec
    clusters = len(spec.hosts) * len(spec.ports)
    places = clusters * len(spec.endpoints)
    if clusters > MOST_HOST_PORTS:
        what = f"{clusters} hosts times ports, and at most {MOST_HOST_PORTS}"
        yield ("spec",), f"{what} are taken; split the entry"
    elif places > MOST_PLACES:
        what = f"{places} hosts times ports times endpoints, and at most {MOST_PLACES}"
        yield ("spec",), f"{what} are taken; split the entry"
