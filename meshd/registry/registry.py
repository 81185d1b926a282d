"""Builds the snapshot that is compiled, from objects and workloads.

This module decides which workload serves which service, and on what port. The objects' fields were
validated before; a service that makes no sense here has no endpoints, never an error. The result
follows from the arguments alone, but what has not changed since the snapshot before is the very
object that it was then, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from meshd.api.base import Object
from meshd.api.kubernetes.types import Service
from meshd.api.service_entry.types import ServiceEntry
from meshd.model.closed_workload import closed_addresses
from meshd.model.listed import ListedEndpoint
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry import entries, membership, services
from meshd.registry.addresses import Allocation, VirtualAddresses, allocate
from meshd.registry.backends import Registered
from meshd.registry.records import Records
from meshd.registry.sorted_objects import SortedObjects


class Registry:
    """Builds one snapshot after the other."""

    def __init__(self) -> None:
        self._objects = SortedObjects.of(())
        self._given: tuple[object, ...] = ()
        """What the records were made with."""
        self._allocated: tuple[VirtualAddresses, str, str] | None = None
        self._allocation = Allocation({})
        self._registered = Registered()
        self._records = Records(MeshOptions())

    @property
    def made(self) -> int:
        """Return how many times the records of an object were made."""
        return self._records.made

    def allocation(
        self,
        objects: Iterable[Object],
        previous: VirtualAddresses,
        options: MeshOptions,
        cidr: str,
    ) -> Allocation:
        """Return the virtual addresses of services, as ``allocate`` does."""
        known = self._sorted(objects)
        if self._allocated != (previous, options.domain, cidr):
            hosts = hosts_without_address(known.services, options)
            taken = declared_addresses(known.services)
            self._allocation = allocate(previous, hosts, cidr, taken)
            self._allocated = (self._allocation.addresses, options.domain, cidr)
        return self._allocation

    def _sorted(self, objects: Iterable[Object]) -> SortedObjects:
        before, self._objects = self._objects, SortedObjects.of(objects, self._objects)
        if before.services is not self._objects.services:
            self._allocated = None
        return self._objects

    def snapshot(  # noqa: PLR0917 - what there is, from everywhere
        self,
        objects: Iterable[Object],
        workloads: Iterable[Workload],
        options: MeshOptions,
        addresses: VirtualAddresses,
        revision: int = 0,
        elsewhere: Iterable[Workload] = (),
        listed: Sequence[ListedEndpoint] = (),
    ) -> Snapshot:
        """Return the snapshot.

        ``workloads`` are all that are registered; only those in the mesh are in the snapshot.
        ``elsewhere``: those of other nodes, which serve services and are not in the snapshot.
        ``listed``: the endpoints of Services that Kubernetes lists.
        ``addresses`` are the virtual ones by host, of the hosts that ``hosts_without_address``
        names.
        """
        known = self._sorted(objects)
        registered = sorted(workloads, key=lambda workload: workload.uid)
        given, self._given = self._given, ()  # an exception leaves nothing to go on from
        if not given or given[0] != options:
            self._records, self._registered = Records(options), Registered(options)
        changed = self._registered.follow(
            registered, tuple(elsewhere), known.workload_entries, known.namespaces, listed
        )
        backends = self._registered.backends
        if given and given[1] is known.services and given[:1] + given[2:] == (options, addresses):
            records = self._records.with_backends(changed, backends, addresses)
        else:
            self._records.forget(changed)
            records = self._records.of(known.services, backends, addresses)
        self._given = (options, known.services, addresses)
        closed = closed_addresses(known.closed_workloads, self._declared(records.values()))
        return Snapshot(
            revision=revision,
            options=msgspec.structs.replace(options, closed_addresses=closed)
            if closed
            else options,
            services=records,
            virtual_services=known.virtual_services,
            destination_rules=known.destination_rules,
            gateways=known.gateways,
            gateway_accounts=self._registered.gateway_accounts(known.gateways),
            peer_authentications=known.peer_authentications,
            authorization_policies=known.authorization_policies,
            request_authentications=known.request_authentications,
            secrets=known.secrets,
            workloads={
                workload.uid: workload
                for workload in registered
                if membership.of_workload(workload, known.namespaces).enrolled
            },
        )

    def _declared(self, records: Iterable[ServiceRecord]) -> Iterator[str]:
        """Yield the addresses of workloads, of WorkloadEntries, and of services in force."""
        yield from self._registered.addresses()
        for record in records:
            if not record.closed:
                yield from record.addresses
                yield from record.endpoint_addresses


def build_snapshot(  # noqa: PLR0917 - what there is, from everywhere
    objects: Iterable[Object],
    workloads: Iterable[Workload],
    options: MeshOptions,
    addresses: VirtualAddresses,
    revision: int = 0,
    elsewhere: Iterable[Workload] = (),
    listed: Sequence[ListedEndpoint] = (),
) -> Snapshot:
    """Return one snapshot, as ``Registry`` does."""
    given = objects, workloads, options, addresses, revision, elsewhere, listed
    return Registry().snapshot(*given)


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
