"""Services of the host that a WorkloadEntry declares by the annotation ``meshd.io/unit``. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from meshd.api import checked
from meshd.api.service_entry.types import WorkloadEntry
from meshd.base.errors import InvalidInputError
from meshd.model.closed_workload import UNIT
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.workloads.host import units

ANNOTATION: Final = UNIT


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """The changes that make the registered services those that are declared."""

    register: tuple[Workload, ...]
    unregister: tuple[str, ...]
    problems: tuple[str, ...]


def compare(
    entries: Iterable[WorkloadEntry],
    registered: Mapping[str, Workload],
    addresses: Iterable[str],
) -> Declared:
    """Return the changes; an entry is about this host if it has one of its ``addresses``.

    An entry that was accepted stays for as long as it is declared, whatever becomes of the address.
    """
    own = frozenset(addresses)
    register: list[Workload] = []
    problems: list[str] = []
    uids: set[str] = set()
    for entry in entries:
        unit = entry.metadata.annotations.get(ANNOTATION)
        if not unit:
            continue
        uid = f"{entry.metadata.namespace}.{entry.metadata.name}"
        uids.add(uid)
        known = registered.get(uid)
        if entry.spec.address not in own and known is None:
            continue
        try:
            wanted = _workload(entry, uid, unit)
        except InvalidInputError as error:
            problems.append(f"{entry.key}: annotation {ANNOTATION}: {error}")
            continue
        if known is None or _without_ports(known) != wanted:
            register.append(wanted)
    gone = tuple(
        uid for uid, one in registered.items() if one.host and one.host.declared and uid not in uids
    )
    return Declared(tuple(register), gone, tuple(problems))


def _workload(entry: WorkloadEntry, uid: str, unit: str) -> Workload:
    """Raises InvalidInputError."""
    name = units.unit_name(unit)
    spec, meta = entry.spec, entry.metadata
    return checked.build(
        Workload,
        uid=uid,
        name=meta.name,
        namespace=meta.namespace,
        netns="",
        service_account=spec.service_account or "default",
        labels={**meta.labels, **spec.labels},
        annotations=dict(meta.annotations),
        addresses=(spec.address,),
        locality=spec.locality or "",
        ports=tuple(NamedPort(port, number) for port, number in spec.ports.items()),
        host=HostService(cgroup=units.cgroup_of(name), unit=name, declared=True),
    )


def _without_ports(known: Workload) -> Workload:
    """Return the workload as it was before it got its ports of the host."""
    host = known.host
    if host is None:
        return known
    bare = msgspec.structs.replace(host, outbound_port=0, inbound_port=0)
    return msgspec.structs.replace(known, host=bare)
