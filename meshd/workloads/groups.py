"""Members of WorkloadGroups, and the WorkloadEntries that represent them. Pure.

A workload names its group in an annotation. It gets the group's labels, service account and ports,
is ready only while the group's probe passes, and is an entry for as long as its node is connected:
https://istio.io/latest/docs/reference/config/networking/workload-group/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from meshd.api.base import Key, Object, ObjectMeta
from meshd.api.service_entry.types import (
    ReadinessProbe,
    WorkloadEntry,
    WorkloadEntrySpec,
    WorkloadGroup,
)
from meshd.model.workload import NamedPort, Workload

ANNOTATION: Final = "meshd.io/workload-group"
_REGISTERED_BY: Final = "istio.io/autoRegistrationGroup"
"""Istio's own annotation of an entry that was made for a member of a group."""
_HEALTHY: Final = "meshd.io/healthy"


def group_of(workload: Workload, objects: Mapping[Key, Object]) -> WorkloadGroup | None:
    name = workload.annotations.get(ANNOTATION)
    if not name:
        return None
    found = objects.get(Key(WorkloadGroup.KIND, workload.namespace, name))
    return found if isinstance(found, WorkloadGroup) else None


def as_member(
    workload: Workload, objects: Mapping[Key, Object], is_healthy: Callable[[str], bool]
) -> Workload:
    """Return the workload with its group's values, which its own override; without a group,
    unchanged."""
    group = group_of(workload, objects)
    if group is None:
        return workload
    template = group.spec.template
    given = tuple(NamedPort(name, number) for name, number in template.ports.items())
    return msgspec.structs.replace(
        workload,
        labels={**group.spec.metadata.labels, **template.labels, **workload.labels},
        annotations={**group.spec.metadata.annotations, **workload.annotations},
        service_account=template.service_account or workload.service_account,
        ports=workload.ports or given,
        locality=workload.locality or template.locality or "",
        ready=workload.ready and (group.spec.probe is None or is_healthy(workload.uid)),
    )


def probes(
    workloads: Iterable[Workload], objects: Mapping[Key, Object]
) -> dict[str, tuple[Workload, ReadinessProbe]]:
    """Return the health probes of this node, by uid."""
    return {
        one.uid: (one, group.spec.probe)
        for one in workloads
        if (group := group_of(one, objects)) and group.spec.probe
    }


def entries(members: Iterable[Workload]) -> dict[Key, WorkloadEntry]:
    """Return an entry for each member with an address, on any node; named as Istio names them."""
    found: dict[Key, WorkloadEntry] = {}
    for one in members:
        group = one.annotations.get(ANNOTATION)
        if group and one.addresses:
            entry = _entry(one, group, one.addresses[0])
            found[entry.key] = entry
    return found


def _entry(member: Workload, group: str, address: str) -> WorkloadEntry:
    name = f"{group}-{address.replace(':', '-')}".strip("-").lower()
    annotations = {_REGISTERED_BY: group, _HEALTHY: "true" if member.ready else "false"}
    spec = WorkloadEntrySpec(
        address=address,
        labels=member.labels,
        service_account=member.service_account,
        locality=member.locality or None,
        ports={port.name: port.number for port in member.ports if port.name},
    )
    meta = ObjectMeta(name=name, namespace=member.namespace, annotations=annotations)
    return WorkloadEntry(metadata=meta, spec=spec)
