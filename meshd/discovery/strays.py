"""Processes of an enrolled unit that have left its cgroup, so that nothing of theirs is captured.

``su -``, ``sudo -i`` and all else that opens a PAM session move to the session's cgroup, and
``systemd-run`` and cron start what they are told in one of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_UNUSUAL: Final = re.compile(
    r"/user\.slice/.*|/system\.slice/(run-.*|crond?\.service|atd\.service)"
)
"""Where no unit of its own has its processes: they are there on behalf of somebody."""


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    name: str
    user: int
    cgroup: str
    """From the root of the hierarchy, with a slash before it."""


def strays(processes: Mapping[int, Process], slice_: str, user: int) -> tuple[Process, ...]:
    """Those that have left the slice: begun by a process in it, or by somebody else on behalf of
    the unit's user. 0: root, whose processes tell nothing. Pure."""
    return tuple(
        one
        for one in processes.values()
        if not _is_in(one, slice_)
        and (
            any(_is_in(parent, slice_) for parent in _ancestors(one, processes))
            or (user and one.user == user and _UNUSUAL.fullmatch(one.cgroup))
        )
    )


def remark(found: Iterable[Process], unit: str) -> str:
    """What people are told of them; empty when there are none. Pure."""
    told = [f"{one.pid} ({one.name}) in {one.cgroup}" for one in found]
    if not told:
        return ""
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    return f"{unit} has processes outside of its cgroup, which bypass the mesh: {told[0]}{more}"


def running() -> dict[int, Process]:
    """All of this network namespace, by pid."""
    own = _namespace(_PROC / "self")
    found = (_read(path) for path in _PROC.iterdir() if path.name.isdigit())
    return {one.pid: one for one, namespace in filter(None, found) if namespace in {0, own}}


def _read(path: Path) -> tuple[Process, int] | None:
    """None when it has ended. With its network namespace: proc(5)."""
    try:
        before, _, after = (path / "stat").read_text(errors="replace").rpartition(")")
        lines = (path / "cgroup").read_text(errors="replace").splitlines()
        user = path.stat().st_uid
    except OSError:
        return None
    cgroup = next((line[3:] for line in lines if line.startswith("0::")), "")
    pid, _, name = before.partition(" (")
    return Process(int(pid), int(after.split()[1]), name, user, cgroup), _namespace(path)


def _namespace(path: Path) -> int:
    """0: it is not for us to see."""
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
