"""The place of a workload's probe: beside a process of the workload, as the user of that process.

The mesh role names the workload only. What belongs to the workload is in the run directory, where
only root writes: the capture role's pin of its namespace, or that role's note with its control
group. A process is held by descriptors, so that no process that gets its number later is taken for
it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import msgspec

from meshd.base.errors import UNDECODABLE, InvalidInputError, NotReadyError
from meshd.settings import Paths

_UID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,220}")
_OPENED: Final = {
    "net": ("ns/net", os.O_RDONLY),
    "mount": ("ns/mnt", os.O_RDONLY),
    "root": ("root", os.O_PATH | os.O_DIRECTORY),
    "wd": ("cwd", os.O_PATH | os.O_DIRECTORY),
}
"""nsenter(1)'s options, and what below /proc/PID each stands for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    uid: int
    gid: int
    cgroup: Path
    """Directory of the process's control group, or ours if it has none of version 2."""
    descriptors: tuple[tuple[str, int], ...]
    """By nsenter(1)'s options."""


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The processes of a workload: those in its namespace, or below its control group."""

    workload: str
    pids: tuple[int, ...]
    """As it seemed when they were looked for; those of other users than root first."""
    namespace: tuple[int, int] | None = None
    """Device and inode."""
    cgroup: Path | None = None

    def has(self, place: Place) -> bool:
        if self.cgroup:
            return place.cgroup.is_relative_to(self.cgroup)
        return _key(os.fstat(dict(place.descriptors)["net"])) == self.namespace


def look(paths: Paths, workload: str) -> Home:
    """Raises NotReadyError when nothing of it is captured, or InvalidInputError."""
    if not _UID.fullmatch(workload):
        raise InvalidInputError(f"{workload!r} is not a uid of a workload")
    for pin in paths.netns.glob(f"{workload}@*"):
        wanted = _key(pin.stat())
        inside = (pid for pid in _pids() if _namespace_of(pid) == wanted)
        return Home(workload, tuple(sorted(inside, key=_is_root)), namespace=wanted)
    if not (path := _captured(paths.host_captured).get(workload)):
        raise NotReadyError(f"workload {workload} is not captured yet, so its probe cannot run")
    top = _cgroup_root() / path
    return Home(workload, tuple(sorted(_in_cgroup(top), key=_is_root)), cgroup=top)


@contextlib.contextmanager
def entered(home: Home) -> Generator[Place]:
    """Hold the place beside one of the workload's processes. Raises NotReadyError if none runs."""
    with contextlib.ExitStack() as stack:
        yield _first(home, stack)


def _first(home: Home, stack: contextlib.ExitStack) -> Place:
    for pid in home.pids:
        with contextlib.suppress(OSError):
            place = stack.enter_context(_held(pid))
            if home.has(place):
                return place
    raise NotReadyError(f"no process of workload {home.workload} runs, so its probe cannot")


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _captured(note: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(note.read_bytes(), type=dict[str, str])
    except (OSError, *UNDECODABLE):
        return {}


@contextlib.contextmanager
def _held(pid: int) -> Generator[Place]:
    """Raises OSError when it ends meanwhile: what was read may be another process's then."""
    with contextlib.ExitStack() as stack:
        process = os.pidfd_open(pid)
        stack.callback(os.close, process)
        opened: list[tuple[str, int]] = []
        for option, (name, flags) in _OPENED.items():
            descriptor = os.open(f"/proc/{pid}/{name}", flags | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            opened.append((option, descriptor))
        uid, gid = _user_of(pid)
        place = Place(uid, gid, _cgroup_of(pid), tuple(opened))
        signal.pidfd_send_signal(process, 0)
        yield place


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _namespace_of(pid: int) -> tuple[int, int] | None:
    try:
        return _key(Path(f"/proc/{pid}/ns/net").stat())
    except OSError:
        return None


def _in_cgroup(top: Path) -> list[int]:
    """Return the processes in a control group or below it."""
    pids: list[int] = []
    for processes in top.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            pids += map(int, processes.read_text(encoding="ascii").split())
    return pids


def _cgroup_root() -> Path:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place)
    raise NotReadyError("no cgroup2 hierarchy is mounted, which bounds what a probe begins")


def _cgroup_of(pid: int | str) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::/"):
            directory = _cgroup_root() / line.removeprefix("0::/")
            if (directory / "cgroup.procs").exists():
                return directory
    if pid == "self":
        raise NotReadyError("meshd is in no control group of version 2, which bounds a probe")
    return _cgroup_of("self")


def _is_root(pid: int) -> bool:
    try:
        return _user_of(pid)[0] == 0
    except OSError:
        return True


def _user_of(pid: int) -> tuple[int, int]:
    """Return real uid and gid. Raises OSError if the process has ended."""
    uid = gid = 0
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Uid:"):
            uid = int(line.split()[1])
        if line.startswith("Gid:"):
            gid = int(line.split()[1])
    return uid, gid
