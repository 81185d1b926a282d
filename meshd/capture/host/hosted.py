"""The capturable part of a service of the host."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.capture.host import cgroups
from meshd.capture.host.rules import HostWorkload
from meshd.capture.rules.never_captured import NEVER_INBOUND_PORTS
from meshd.capture.rules.options import options_for
from meshd.model.interception import HOST_PORTS
from meshd.model.workload import Placement, shown
from meshd.settings import CaptureSettings

_UID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,220}")
_CGROUP: Final = re.compile(r"[A-Za-z0-9_.:@+-]+(/[A-Za-z0-9_.:@+-]+)*")


def host_workload(
    placement: Placement, settings: CaptureSettings, proxy_user: int = 0
) -> HostWorkload:
    """Raises InvalidInputError when it asks for what cannot be. All that gets into a rule is
    checked: who asks has fewer privileges than who writes it."""
    workload, host = placement.workload, placement.workload.host
    if host is None:
        raise InvalidInputError(f"workload {shown(workload.uid)} is not a service of the host")
    if not _UID.fullmatch(workload.uid):
        raise InvalidInputError(f"{workload.uid!r} is not a uid of a workload")
    if not _CGROUP.fullmatch(host.cgroup) or {".", ".."} & set(host.cgroup.split("/")):
        raise InvalidInputError(
            f"workload {shown(workload.uid)}: {host.cgroup!r} is not a path of a cgroup below the"
            " root"
        )
    if not {host.outbound_port, host.inbound_port} <= set(HOST_PORTS):
        raise InvalidInputError(
            f"workload {shown(workload.uid)} has no ports of the host of its own"
        )
    options = options_for(placement, settings)
    ports = {port.number for port in workload.ports}
    _check_ports(workload.uid, ports)
    return HostWorkload(
        uid=workload.uid,
        cgroup=host.cgroup,
        cgroup_id=cgroups.identify(host.cgroup),
        outbound_port=host.outbound_port,
        inbound_port=host.inbound_port,
        ports=tuple(sorted(ports - set(options.exclude_inbound_ports))),
        options=options,
        proxy_user=proxy_user,
    )


def _check_ports(uid: str, ports: set[int]) -> None:
    if refused := NEVER_INBOUND_PORTS & ports:
        raise InvalidInputError(
            f"workload {shown(uid)}: port {min(refused)} is never captured on a host;"
            " enroll the service without it"
        )
    if wrong := [port for port in ports if not 0 < port < 65536 or port in HOST_PORTS]:
        raise InvalidInputError(
            f"workload {shown(uid)}: {wrong[0]} is not a port that it could serve"
        )


def without_conflicts(
    workloads: Sequence[HostWorkload],
) -> tuple[tuple[HostWorkload, ...], dict[str, str]]:
    """Return each port for the first service that declares it, and the problems, by uid: the
    workloads come as they were registered, the oldest first."""
    owners: dict[int, str] = {}
    result: list[HostWorkload] = []
    problems: dict[str, str] = {}
    for one in workloads:
        for port in one.ports:
            if owners.setdefault(port, one.uid) != one.uid:
                problems[one.uid] = f"port {port} is captured for {shown(owners[port])} already"
        own = tuple(port for port in one.ports if owners[port] == one.uid)
        result.append(dataclasses.replace(one, ports=own))
    return tuple(result), problems
