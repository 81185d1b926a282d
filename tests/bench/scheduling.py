"""Puts the bench and all that it starts into one group of the CPU scheduler.

The kernel gives each session a group of its own (sched(7), "The autogroup feature"), so that a
program's share of a core would depend on how many sessions the others are in: two sidecars, each a
session, would get as much as a pool and its roles together. Processes that are in a cgroup below
the root are in no autogroup, and compete thread by thread. The machine's setting stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

_AUTOGROUP: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_PATIENCE: Final = 5.0
"""Seconds for processes that have been ended to leave the group."""


def has_autogroups() -> bool:
    """Return whether the kernel groups processes by session."""
    try:
        return _AUTOGROUP.read_text(encoding="ascii").strip() == "1"
    except FileNotFoundError:
        return False


def hierarchy(root: Path = _CGROUPS) -> Path | None:
    """Return the directory below which cgroups have a share of the CPU; None: there is none."""
    controllers = root / "cgroup.subtree_control"
    if controllers.exists():
        return root if "cpu" in controllers.read_text(encoding="ascii").split() else None
    names = ("cpu", "cpu,cpuacct", "cpuacct,cpu")
    return next((root / name for name in names if (root / name / "cgroup.procs").exists()), None)


@contextlib.contextmanager
def one_group() -> Generator[bool]:
    """Yield whether all that is started in the block competes thread by thread."""
    parent = hierarchy() if has_autogroups() else None
    if parent is None:
        yield not has_autogroups()
        return
    group = parent / f"meshd-bench-{os.getpid()}"
    try:
        group.mkdir()
        _enter(group)
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        _enter(parent)
        _remove(group)


def _enter(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _remove(group: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while (group / "cgroup.procs").read_text(encoding="ascii") and time.monotonic() < end:
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        group.rmdir()
