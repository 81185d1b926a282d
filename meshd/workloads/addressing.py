"""The addresses at which others reach a workload: those that were asked for, or those it has. Pure.

An address that was only seen is never recorded as if it had been asked for: it is looked up again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from meshd.model.workload import HostService, Workload


def reached(workload: Workload, host: tuple[str, ...], seen: tuple[str, ...]) -> Workload:
    """Return the workload with its present addresses.

    ``host``: this host's own; ``seen``: those in the workload's namespace.
    """
    if workload.addresses:
        return workload
    return msgspec.structs.replace(workload, addresses=host if workload.host else seen)


def known(
    registered: Mapping[str, Workload],
    host: tuple[str, ...],
    seen: Mapping[str, tuple[str, ...]],
) -> dict[str, Workload]:
    """Return all workloads with their present addresses; ``seen`` by uid."""
    return {uid: reached(one, host, seen.get(uid, ())) for uid, one in registered.items()}


def asked_only(known: Mapping[str, Workload], own: Collection[str]) -> dict[str, Workload]:
    """Return workloads without addresses that were only seen.

    Records of an older meshd do not distinguish the two. An address that is the host's own was
    seen, most likely.
    """
    return {uid: _asked_only(one, one.host, own) for uid, one in known.items()}


def _asked_only(workload: Workload, host: HostService | None, own: Collection[str]) -> Workload:
    if host is None or host.declared or host.address_asked is not None:
        return workload
    if not set(workload.addresses) & set(own):
        return workload
    seen = msgspec.structs.replace(host, address_asked=False)
    return msgspec.structs.replace(workload, addresses=(), host=seen)


def doubt(workload: Workload, own: Collection[str]) -> str:
    """Return why others may not reach a service of the host at its address; empty if they do."""
    host = workload.host
    if host is None or not own or not workload.addresses or set(workload.addresses) & set(own):
        return ""
    name = f"{workload.namespace}/{workload.name}"
    address = f"its address {workload.addresses[0]} is none of this host's"
    if host.declared:
        return f"WorkloadEntry {name}: {address}, which has {', '.join(own)}"
    if host.address_asked is None:
        what = f"unless it was asked for, unenroll {host.unit or host.cgroup} and enroll it again"
        return f"workload {name}: {address}, and an older meshd recorded it; {what}"
    return ""


def first_doubt(registered: Mapping[str, Workload], own: Collection[str]) -> str:
    return next(filter(None, (doubt(one, own) for one in registered.values())), "")
