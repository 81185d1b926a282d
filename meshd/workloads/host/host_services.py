"""Enrolled services of the host: their ports there, and the record of them.

What systemd needs is in ``units``. Unlike a pod's, their registrar is gone, so the record outlives
a reboot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.model.interception import HOST_PORTS
from meshd.model.workload import HostService, Workload, shown
from meshd.workloads import record

RECORD: Final = "services.json"
"""In meshd's own directory."""


def with_ports(found: Iterable[Workload], known: Mapping[str, Workload]) -> tuple[Workload, ...]:
    """Give services of the host their two ports; known ones keep theirs, other workloads stay
    unchanged.

    Raises NotReadyError if no port is left.
    """
    given = {uid: host for uid, one in known.items() if (host := one.host)}
    result: list[Workload] = []
    for workload in found:
        host = workload.host
        if host:
            host = _with_ports(workload.uid, host, given)
            given[workload.uid] = host
        result.append(msgspec.structs.replace(workload, host=host))
    return tuple(result)


def _with_ports(uid: str, host: HostService, given: Mapping[str, HostService]) -> HostService:
    if before := given.get(uid):
        outbound, inbound = before.outbound_port, before.inbound_port
    else:
        taken = {one.outbound_port for one in given.values()}
        free = (port for port in HOST_PORTS[::2] if port not in taken)
        outbound = next(free, 0)
        if not outbound:
            raise NotReadyError(
                f"{shown(uid)} cannot be enrolled: all ports from {HOST_PORTS.start} to"
                f" {HOST_PORTS.stop - 1} belong to other services of this host"
            )
        inbound = outbound + 1
    return msgspec.structs.replace(host, outbound_port=outbound, inbound_port=inbound)


def refuse_taken(workload: Workload, others: Iterable[Workload]) -> None:
    """Raises InvalidInputError when the unit, the cgroup or a port of a service of the host is
    another workload's."""
    host = workload.host
    if host is None:
        return
    claims = [(one, one.host) for one in others if one.uid != workload.uid and one.host]
    for other, theirs in claims:
        if theirs.cgroup == host.cgroup or (host.unit and theirs.unit == host.unit):
            raise InvalidInputError(
                f"{host.unit or host.cgroup} is enrolled as {other.namespace}/{other.name};"
                " meshctl unenroll it first"
            )
    refuse_taken_ports((workload,), (other for other, _ in claims))


def refuse_taken_ports(found: Iterable[Workload], known: Iterable[Workload]) -> None:
    """Raises InvalidInputError when one of them declares a port that another service of the host
    declares: it would never be captured."""
    others = tuple(known)
    for workload in found:
        for other in others:
            if workload.uid == other.uid or not (workload.host and other.host):
                continue
            if both := _captured_ports(workload) & _captured_ports(other):
                place = other.host.unit or f"--cgroup {other.host.cgroup}"
                raise InvalidInputError(
                    f"port {min(both)} is captured for {other.namespace}/{other.name} already;"
                    f" enroll it without that port, or first: meshctl unenroll {place}"
                )


def _captured_ports(workload: Workload) -> set[int]:
    left_out = workload.annotations.get("traffic.sidecar.istio.io/excludeInboundPorts", "")
    excluded = {text.strip() for text in left_out.split(",")}
    return {port.number for port in workload.ports if str(port.number) not in excluded}


def save(path: Path, registered: Mapping[str, Workload], before: Mapping[str, Workload]) -> None:
    """Write what differs from what was registered before. Raises SystemRefusedError.

    A disk that cannot be written is no reason to refuse workloads that are not recorded there.
    """
    hosted = _hosted(registered)
    if hosted != _hosted(before):
        record.save(path, record.Record(hosted), durable=True)


def _hosted(registered: Mapping[str, Workload]) -> dict[str, Workload]:
    return {uid: one for uid, one in registered.items() if one.host}
