"""Builds the snapshot that is compiled, from objects and workloads. Pure.

This module decides which workload serves which service, and on what port. The objects' fields were
validated before; a service that makes no sense here has no endpoints, never an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from meshd.api.base import Object, exported_to_all
from meshd.api.kubernetes.types import Namespace, Secret, Service
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.service_entry.types import ServiceEntry, WorkloadEntry
from meshd.api.traffic import DestinationRule, Gateway, VirtualService
from meshd.model.service import Endpoint, Resolution, ServiceRecord, seen_from
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry import entries, membership, services
from meshd.registry.following_names import followed
from meshd.registry.selection import Backend, Backends

T = TypeVar("T", bound=Object)


def build_snapshot(  # noqa: PLR0917 - what there is, from everywhere
    objects: Iterable[Object],
    workloads: Iterable[Workload],
    options: MeshOptions,
    addresses: Mapping[str, str],
    revision: int = 0,
    elsewhere: Iterable[Workload] = (),
) -> Snapshot:
    """Return the snapshot.

    ``workloads`` are all that are registered; only those in the mesh are in the snapshot.
    ``elsewhere``: those of other nodes, which serve services and are not in the snapshot.
    ``addresses`` are the virtual ones by host, of the hosts that ``hosts_without_address`` names.
    """
    everything = sorted(objects, key=_age)
    namespaces = {found.metadata.name: found for found in _of(everything, Namespace)}
    registered = sorted(workloads, key=lambda workload: workload.uid)
    remote = tuple(elsewhere)
    hosted = {(one.namespace, one.name) for one in (*registered, *remote) if one.host}
    enrolled = {
        workload.uid: workload
        for workload in registered
        if membership.of_workload(workload, namespaces).enrolled
    }
    backends = Backends(
        [
            *(
                Backend.of_workload(one, one.uid in enrolled, options.node, options.locality)
                for one in registered
            ),
            *(
                Backend.of_workload(one, membership.of_workload(one, namespaces).enrolled)
                for one in remote
            ),
            *(
                Backend.of_entry(one)
                for one in _of(everything, WorkloadEntry)
                # One that declares a service of a host is known as that workload.
                if (one.metadata.namespace, one.metadata.name) not in hosted
            ),
        ]
    )
    return Snapshot(
        revision=revision,
        options=options,
        namespaces=namespaces,
        services=_services(everything, backends, options, addresses),
        virtual_services=tuple(_of(everything, VirtualService)),
        destination_rules=tuple(_of(everything, DestinationRule)),
        gateways=tuple(_of(everything, Gateway)),
        gateway_accounts=_gateway_accounts(everything, (*registered, *remote), namespaces),
        peer_authentications=tuple(_of(everything, PeerAuthentication)),
        secrets=_secrets(everything),
        workloads=enrolled,
    )


def _secrets(objects: Iterable[Object]) -> dict[str, Secret]:
    """Return the Secrets by ``NAMESPACE/NAME``."""
    return {
        f"{found.metadata.namespace}/{found.metadata.name}": found for found in _of(objects, Secret)
    }


def _gateway_accounts(
    objects: Iterable[Object], workloads: Iterable[Workload], namespaces: Mapping[str, Namespace]
) -> tuple[tuple[str, str], ...]:
    gateways = tuple(_of(objects, Gateway))
    found = {
        (workload.namespace, workload.service_account)
        for workload in workloads
        if any(gateway.selects(workload.labels) for gateway in gateways)
        and membership.of_workload(workload, namespaces).enrolled
    }
    return tuple(sorted(found))


def hosts_without_address(objects: Iterable[Object], options: MeshOptions) -> tuple[str, ...]:
    """Return the hosts that need a virtual address, because they declare none and clients must have
    one."""
    hosts: set[str] = set()
    for found in objects:
        if isinstance(found, Service) and services.needs_address(found):
            hosts.add(services.host_of(found, options.domain))
        elif isinstance(found, ServiceEntry) and entries.needs_address(found):
            hosts.update(host for host in found.spec.hosts if "*" not in host)
    return tuple(sorted(hosts))


def declared_addresses(objects: Iterable[Object]) -> frozenset[str]:
    """Return the virtual addresses that objects declare."""
    return frozenset(
        address
        for found in objects
        for address in (
            services.declared_addresses(found)
            if isinstance(found, Service)
            else (found.spec.addresses if isinstance(found, ServiceEntry) else ())
        )
    )


def _age(found: Object) -> tuple[str, str, str]:
    """Return a key that sorts oldest first; an object without a time counts as oldest."""
    meta = found.metadata
    return meta.creation_timestamp or "", meta.namespace, meta.name


def _of(objects: Iterable[Object], kind: type[T]) -> Iterator[T]:
    return (found for found in objects if isinstance(found, kind))


def _services(
    objects: list[Object],
    backends: Backends,
    options: MeshOptions,
    addresses: Mapping[str, str],
) -> dict[str, ServiceRecord]:
    """Return the records by host; a Service wins over a ServiceEntry, and the older over the
    younger."""
    of_kubernetes: dict[str, ServiceRecord] = {}
    for service in _of(objects, Service):
        record = services.to_record(service, backends, options, addresses)
        of_kubernetes[record.host] = record
    records = {(record.host, record.namespace): record for record in of_kubernetes.values()}
    for entry in _of(objects, ServiceEntry):
        for record in entries.to_records(entry, backends, addresses):
            known = records.get(key := (record.host, record.namespace))
            records[key] = _merged(known, record) if known else record
    return _by_host(_followed(records.values()))


def _followed(records: Collection[ServiceRecord]) -> Iterator[ServiceRecord]:
    seen: dict[str, dict[str, ServiceRecord]] = {}
    for record in records:
        if record.resolution not in {Resolution.DNS, Resolution.DNS_ROUND_ROBIN}:
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
