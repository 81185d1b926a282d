"""The snapshot of this moment, from the store and the registered workloads."""

from __future__ import annotations

from collections.abc import Iterable

from meshd.config.store import Store
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.addresses import allocate
from meshd.registry.registry import build_snapshot, declared_addresses, hosts_without_address


def take(
    store: Store,
    workloads: Iterable[Workload],
    options: MeshOptions,
    service_cidr: str,
    elsewhere: Iterable[Workload] = (),
) -> tuple[Snapshot, tuple[str, ...]]:
    """Return the snapshot, and problems: of files, and of services without a free virtual address.

    ``elsewhere``: workloads of other nodes, whose uids are none of this one. New virtual addresses
    are remembered in the store. Raises ValueError if ``service_cidr`` is no network.
    """
    objects = tuple(store.objects.values())
    hosts = hosts_without_address(objects, options)
    allocation = allocate(store.addresses, hosts, service_cidr, declared_addresses(objects))
    store.keep_addresses(allocation.addresses)
    snapshot = build_snapshot(
        objects, workloads, options, allocation.addresses, store.revision, elsewhere
    )
    wrong = (str(finding) for finding in store.findings if finding.severity == "error")
    left_out = (
        f"{host} has no virtual address: {service_cidr} is full; widen mesh.service_cidr"
        for host in allocation.left_out
    )
    return snapshot, (*wrong, *left_out)
