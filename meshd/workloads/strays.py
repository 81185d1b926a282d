"""Finds processes of an enrolled unit that have left its cgroup, and so are not captured.

``su -``, ``sudo -i`` and all other programs that open a PAM session move to the session's cgroup;
``systemd-run`` and cron start programs in cgroups of their own. The capture role looks for such
processes while a unit is enrolled. ``meshctl`` looks again, since it knows the unit's state in
systemd.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from meshd.model.workload import HostService
from meshd.workloads.host import starters

_PROC: Final = Path("/proc")
_TRANSIENT: Final = Path("/run/systemd/transient")
"""The unit files that systemd-run makes systemd start, by name: systemd.unit(5)."""
_UNUSUAL: Final = re.compile(
    r"/user\.slice/.*|/system\.slice/(run-.*|(ana|f)?crond?(-.*)?\.service|atd\.service)"
)
"""Matches cgroups of processes that run on behalf of a user, not as a unit of their own."""
_SHARED_USERS: Final = frozenset({0, 65534})
"""root and nobody. Unrelated programs run as these users, the node's resolvers among them, so the
user does not tell to which unit a process belongs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    name: str
    user: int
    cgroup: str
    """The path from the root of the hierarchy, with a leading slash."""
    transient: bool = False
    """Whether the process is in a transient unit, which no file of an administrator defines."""


def strays(
    processes: Mapping[int, Process], slice_: str, user: int, unit: str = ""
) -> tuple[Process, ...]:
    """Return processes that have left the slice. Pure.

    They were started by a process in the slice, by other programs on behalf of the unit's user, or
    by the unit, if its work is to start processes in other cgroups.
    """
    is_own = user not in _SHARED_USERS
    return tuple(
        one
        for one in processes.values()
        if not _is_in(one, slice_)
        and (
            any(_is_in(parent, slice_) for parent in _ancestors(one, processes))
            or starters.is_started_by(unit, one.cgroup)
            or (is_own and one.user == user and (one.transient or _UNUSUAL.fullmatch(one.cgroup)))
        )
    )


def bypasses(
    services: Mapping[str, HostService], processes: Mapping[int, Process]
) -> dict[str, str]:
    """Return remarks about processes that are no longer in the cgroup of any service.

    The remarks are by uid of the workload. Pure.
    """
    told: dict[str, str] = {}
    for uid, service in services.items():
        outside = {one.cgroup for one in services.values()} - {service.cgroup}
        left = (
            one
            for one in strays(
                processes, service.cgroup, _user(processes, service.cgroup), service.unit
            )
            if not any(_is_in(one, cgroup) for cgroup in outside)
        )
        if text := remark(left, service.unit or f"cgroup {service.cgroup}"):
            told[uid] = text
    return told


def _user(processes: Mapping[int, Process], slice_: str) -> int:
    """Return the user of a service if all its processes run as one user; else 0."""
    users = {one.user for one in processes.values() if _is_in(one, slice_)}
    return users.pop() if len(users) == 1 else 0


def remark(found: Iterable[Process], unit: str) -> str:
    """Return the remark about such processes; empty if there are none. Pure."""
    told = [f"{one.pid} ({one.name}) in {one.cgroup}" for one in found]
    if not told:
        return ""
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    return f"{unit} has processes outside its cgroup, which bypass the mesh: {told[0]}{more}"


def running() -> dict[int, Process]:
    """Return all processes of this network namespace, by pid."""
    own, transient = _namespace(_PROC / "self"), frozenset[str]()
    with contextlib.suppress(OSError):
        transient = frozenset(path.name for path in _TRANSIENT.iterdir())
    found = (_read(path, transient) for path in _PROC.iterdir() if path.name.isdigit())
    return {one.pid: one for one, namespace in filter(None, found) if namespace in {0, own}}


def _read(path: Path, transient: frozenset[str]) -> tuple[Process, int] | None:
    """Return a process with its network namespace; None if it has ended: proc(5)."""
    try:
        before, _, after = (path / "stat").read_text(errors="replace").rpartition(")")
        lines = (path / "cgroup").read_text(errors="replace").splitlines()
        user = path.stat().st_uid
    except OSError:
        return None
    cgroup = next((line[3:] for line in lines if line.startswith("0::")), "")
    pid, _, name = before.partition(" (")
    is_transient = not transient.isdisjoint(cgroup.split("/"))
    one = Process(int(pid), int(after.split()[1]), name, user, cgroup, is_transient)
    return one, _namespace(path)


def _namespace(path: Path) -> int:
    """Return a namespace's number; 0 if it is not visible."""
    try:
        return (path / "ns/net").stat().st_ino
    except OSError:
        return 0


def _ancestors(one: Process, processes: Mapping[int, Process]) -> Iterable[Process]:
    seen = {one.pid}
    while (parent := processes.get(one.parent)) and parent.pid not in seen:
        yield parent
        seen.add(parent.pid)
        one = parent


def _is_in(one: Process, slice_: str) -> bool:
    return f"{one.cgroup}/".startswith(f"/{slice_}/")
