"""How many parts an object may have.

What proxies are told grows with each, on every node. The numbers are those of Istio's own schemas
where these have any, and of etcd, in which Kubernetes' objects have to fit; otherwise far more than
people write.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from meshd.api.base import Object
from meshd.api.checks import Report
from meshd.api.decode import Path
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.write import to_json

MOST: Final = 1024
"""Entries of any list or mapping that has no number of its own here."""
MOST_VALUES: Final = 32_768
"""All that is written in one object, lists and mappings included."""
MOST_BYTES: Final = 1_572_864
"""1.5 MiB, which is what etcd takes in one request: https://etcd.io/docs/latest/dev-guide/limit/."""
MOST_HOST_PORTS: Final = 1024
"""Hosts times ports of one ServiceEntry: each is a cluster, and a host of its own to HTTP."""
MOST_PLACES: Final = 8192
"""Hosts times ports times endpoints of one ServiceEntry: each is told to proxies by itself."""

_NUMBERS: Final[dict[tuple[str, ...], int]] = {
    ("Service", "spec", "ports"): 128,
    ("ServiceEntry", "spec", "hosts"): 256,
    ("ServiceEntry", "spec", "ports"): 256,
    ("ServiceEntry", "spec", "addresses"): 256,
    ("ServiceEntry", "spec", "endpoints"): 4096,
    ("Gateway", "spec", "servers"): 256,
    ("VirtualService", "spec", "hosts"): 256,
    ("VirtualService", "spec", "gateways"): 256,
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
    for path, length in _containers(value, ()):
        count += 1 + length
        place = (found.KIND, *(part for part in path if isinstance(part, str)))
        most = _NUMBERS.get(place, MOST)
        if length > most:
            yield path, f"{length} entries, and at most {most} are taken; split it"
    if count > MOST_VALUES:
        yield (), f"more than {MOST_VALUES} values; split it"
    if isinstance(found, ServiceEntry):
        yield from _products(found)


def _containers(value: Any, path: Path) -> Iterator[tuple[Path, int]]:
    """Yield each list and mapping, with its number of entries."""
    if not isinstance(value, dict | list):
        return
    yield path, len(value)
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _containers(part, (*path, key))


def _products(found: ServiceEntry) -> Iterator[tuple[Path, str]]:
    spec = found.spec
    clusters = len(spec.hosts) * len(spec.ports)
    places = clusters * len(spec.endpoints)
    if clusters > MOST_HOST_PORTS:
        what = f"{clusters} hosts times ports, and at most {MOST_HOST_PORTS}"
        yield ("spec",), f"{what} are taken; split the entry"
    elif places > MOST_PLACES:
        what = f"{places} hosts times ports times endpoints, and at most {MOST_PLACES}"
        yield ("spec",), f"{what} are taken; split the entry"
