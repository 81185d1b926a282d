"""The records of all services, each made anew only when something that it depends on changes."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshd.api.base import exported_to_all
from meshd.api.kubernetes.types import Service
from meshd.api.service_entry.types import ServiceEntry
from meshd.model.closed_services import ClosedEntry, ClosedService
from meshd.model.service import Endpoint, Resolution, ServiceRecord, seen_from
from meshd.model.snapshot import MeshOptions
from meshd.registry import entries, services
from meshd.registry.addresses import VirtualAddresses
from meshd.registry.following_names import followed
from meshd.registry.selection import Backend, Backends

Source = Service | ServiceEntry
_BY_NAME: Final = frozenset({Resolution.DNS, Resolution.DNS_ROUND_ROBIN})


@dataclasses.dataclass(frozen=True, slots=True)
class _Made:
    """The records of one object, and the virtual addresses that it was made with."""

    source: Source
    given: tuple[tuple[str, ...] | None, ...]
    records: tuple[ServiceRecord, ...]


class Records:
    """Records by host, with those that have not changed as the very objects they were."""

    def __init__(self, options: MeshOptions) -> None:
        self._options = options
        self._made: dict[int, _Made] = {}
        """By the identity of the object, which lives as long as its entry."""
        self._selecting: dict[tuple[str, str, str], list[int]] = {}
        """Objects by the namespace and the first label of their selectors."""
        self._by_host: dict[str, ServiceRecord] = {}
        self._shared: frozenset[str] = frozenset()
        """Hosts that several objects declare."""
        self._are_followed = False
        """Some records have the endpoints of others."""
        self.made = 0
        """How many times an object's records were made."""

    def of(
        self, sources: Collection[Source], backends: Backends, addresses: VirtualAddresses
    ) -> dict[str, ServiceRecord]:
        """Return the records of objects, oldest first; of those that are the very objects they were
        and have the same addresses, as they are known."""
        before = self._made
        self._made = {}
        self._selecting = defaultdict(list)
        for source in sources:
            given = tuple(addresses.get(host) for host in self._hosts(source))
            made = before.get(id(source))
            if made is None or made.given != given:
                made = self._make(source, given, backends, addresses)
            self._made[id(source)] = made
            if selector := _selector(source):
                self._selecting[_first(source.metadata.namespace, selector)].append(id(source))
        self._join()
        return self._by_host

    def with_backends(
        self, changed: Iterable[Backend], backends: Backends, addresses: VirtualAddresses
    ) -> dict[str, ServiceRecord]:
        """Return the records after some backends, as selected before as now, have changed."""
        others: dict[str, ServiceRecord] = {}
        for key in self._selecting_any(changed):
            made = self._made[key]
            after = self._make(made.source, made.given, backends, addresses)
            if after.records != made.records:
                self._made[key] = after
                others.update((record.host, record) for record in after.records)
        if not others:
            return self._by_host
        if self._are_apart(others):
            self._by_host = self._by_host | others
        else:
            self._join()
        return self._by_host

    def _are_apart(self, changed: Mapping[str, ServiceRecord]) -> bool:
        """Return whether no other record depends on these."""
        return not self._are_followed and all(
            host not in self._shared and record.resolution not in _BY_NAME
            for host, record in changed.items()
        )

    def forget(self, changed: Iterable[Backend]) -> None:
        """Have the records of objects that select these backends made anew."""
        for key in self._selecting_any(changed):
            self._made.pop(key, None)

    def _selecting_any(self, changed: Iterable[Backend]) -> Iterable[int]:
        found: dict[int, None] = {}
        for backend in changed:
            for label, value in backend.labels.items():
                for key in self._selecting.get((backend.namespace, label, value), ()):
                    made = self._made.get(key)
                    if made and _selector(made.source).items() <= backend.labels.items():
                        found[key] = None
        return found

    def _hosts(self, source: Source) -> tuple[str, ...]:
        if isinstance(source, Service):
            return (services.host_of(source, self._options.domain),)
        return source.spec.hosts

    def _make(
        self,
        source: Source,
        given: tuple[tuple[str, ...] | None, ...],
        backends: Backends,
        addresses: VirtualAddresses,
    ) -> _Made:
        self.made += 1
        if isinstance(source, Service):
            records = (services.to_record(source, backends, self._options, addresses),)
        else:
            records = entries.to_records(source, backends, addresses)
        if isinstance(source, ClosedEntry | ClosedService):
            records = tuple(msgspec.structs.replace(record, closed=True) for record in records)
        return _Made(source, given, records)

    def _join(self) -> None:
        """Join the records of all objects; a Service wins over a ServiceEntry, and the older over
        the younger."""
        merged = _merged_records(self._made.values())
        joined = _by_host(_followed(merged))
        # What was joined of several records is made anew each time, and mostly equal.
        before = self._by_host
        self._by_host = {
            host: before[host] if before.get(host) == record else record
            for host, record in joined.items()
        }
        counts = Counter(record.host for one in self._made.values() for record in one.records)
        self._shared = frozenset(host for host, count in counts.items() if count > 1)
        self._are_followed = any(
            all(end.address in counts for end in record.endpoints)
            for record in merged
            if record.resolution in _BY_NAME
        )


def _selector(source: Source) -> Mapping[str, str]:
    if isinstance(source, Service):
        return source.spec.selector
    selector = source.spec.workload_selector
    return selector.labels if selector else {}


def _first(namespace: str, selector: Mapping[str, str]) -> tuple[str, str, str]:
    label, value = next(iter(selector.items()))
    return namespace, label, value


def _merged_records(made: Iterable[_Made]) -> Collection[ServiceRecord]:
    of_kubernetes: dict[str, ServiceRecord] = {}
    of_entries: list[ServiceRecord] = []
    for one in made:
        if isinstance(one.source, Service):
            of_kubernetes.update((record.host, record) for record in one.records)
        else:
            of_entries += one.records
    records = {(record.host, record.namespace): record for record in of_kubernetes.values()}
    for record in of_entries:
        known = records.get(key := (record.host, record.namespace))
        records[key] = _merged(known, record) if known else record
    return records.values()


def _followed(records: Collection[ServiceRecord]) -> Iterator[ServiceRecord]:
    seen: dict[str, dict[str, ServiceRecord]] = {}
    for record in records:
        if record.resolution not in _BY_NAME:
            yield record
            continue
        if (client := record.namespace) not in seen:
            seen[client] = seen_from(client, records)
        yield followed(record, seen[client])


def _by_host(records: Iterable[ServiceRecord]) -> dict[str, ServiceRecord]:
    """Return records by host; the plain name is that of what most clients see."""
    rivals: dict[str, list[ServiceRecord]] = defaultdict(list)
    for record in records:
        rivals[record.host].append(record)
    found: dict[str, ServiceRecord] = {}
    for host, several in rivals.items():
        public = next((one for one in several if exported_to_all(one.export_to)), several[0])
        for record in several:
            if record is public:
                found[host] = record
            else:
                apart = record.namespace
                found[f"{host}@{apart}"] = msgspec.structs.replace(record, apart=apart)
    return found


def _merged(older: ServiceRecord, younger: ServiceRecord) -> ServiceRecord:
    """Return the older record with the ports of the younger, and its endpoints for shared ports.

    Both are of one namespace: nobody adds endpoints to a service of others.
    """
    if younger.closed and not older.closed:
        older = msgspec.structs.replace(older, closed=True)
    if older.resolution != younger.resolution:
        return older
    known = {port.number for port in older.ports}
    served = set(map(_whole, older.endpoints))
    return msgspec.structs.replace(
        older,
        ports=(*older.ports, *(port for port in younger.ports if port.number not in known)),
        addresses=tuple(dict.fromkeys((*older.addresses, *younger.addresses))),
        endpoints=(
            *older.endpoints,
            *(one for one in younger.endpoints if _whole(one) not in served),
        ),
    )


def _whole(endpoint: Endpoint) -> bytes:
    """Return all parts of an endpoint, in a form that sets can hold."""
    return msgspec.json.encode(endpoint, order="deterministic")
