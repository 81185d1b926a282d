"""Measures the processes of workloads, by network namespace or cgroup. Root sees all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from meshd.telemetry import kernel_text
from meshd.telemetry.usage import Sample

_DISK_EVERY: Final = 10.0
"""Seconds: a walk through a volume costs more than all the rest."""
_PATIENCE: Final = 5.0
_SS: Final = ("ss", *("--no-header", "--oneline", "--tcp", "--numeric", "--extended", "--info"))
_GONE: Final = (psutil.Error, OSError)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The place of a workload's processes: a network namespace, or else a cgroup."""

    name: str
    netns: str = ""
    cgroup: str = ""
    """Path below the root of the cgroup2 hierarchy."""


class Reader:
    """Reads samples; it remembers disk usage, which is costly to measure."""

    def __init__(self) -> None:
        self._disks: dict[str, tuple[float, tuple[int | None, int | None]]] = {}

    def read(self, places: Iterable[Place]) -> dict[str, Sample]:
        """Return samples by name; a workload without a process has a sample, too."""
        places = tuple(places)
        by_namespace = _pids_by_namespace() if any(place.netns for place in places) else {}
        on_host = _host_sockets() if any(place.cgroup for place in places) else {}
        ours = _mounts("self")
        found: dict[str, Sample] = {}
        for place in places:
            if place.cgroup:
                pids = tuple(_pids_in_cgroup(place.cgroup))
            else:
                pids = by_namespace.get(_inode(place.netns), ())
            found[place.name] = self._look(place, pids, on_host, ours)
        return found

    def _look(
        self,
        place: Place,
        pids: tuple[int, ...],
        on_host: Mapping[int, tuple[int, int]],
        ours: list[kernel_text.Mount],
    ) -> Sample:
        cpu, memory = _processes(pids)
        held = {inode for pid in pids for inode in _sockets(pid)}
        if place.cgroup:
            counted: Mapping[Hashable, tuple[int, int]] = {
                inode: on_host[inode] for inode in held & on_host.keys()
            }
            connections = len(counted)
        else:
            counted = _interfaces(pids)
            connections = len(held & _established(pids))
        disk, volumes = self._disk(place.name, pids, ours)
        known = bool(pids)
        return Sample(
            taken=time.monotonic(),
            cpu=cpu,
            processes=len(cpu),
            memory=memory,
            disk=disk,
            volumes=volumes,
            connections=connections,
            received={key: value[0] for key, value in counted.items()} if known else None,
            sent={key: value[1] for key, value in counted.items()} if known else None,
        )

    def _disk(
        self, name: str, pids: tuple[int, ...], ours: list[kernel_text.Mount]
    ) -> tuple[int | None, int | None]:
        measured, sizes = self._disks.get(name, (-_DISK_EVERY, (None, None)))
        now = time.monotonic()
        if now - measured >= _DISK_EVERY:
            sizes = _sizes(pids, ours)
            self._disks[name] = now, sizes
        return sizes


# ---- which processes


def _inode(path: str) -> int:
    """Return the inode of a path; 0, which no namespace has, if there is nothing."""
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def _pids_by_namespace() -> dict[int, tuple[int, ...]]:
    """Return the processes by inode of their network namespace, other than our own."""
    found: dict[int, list[int]] = {}
    own = _inode("/proc/self/ns/net")
    for pid in psutil.pids():
        inode = _inode(f"/proc/{pid}/ns/net")
        if inode not in {0, own}:
            found.setdefault(inode, []).append(pid)
    return {inode: tuple(pids) for inode, pids in found.items()}


def _pids_in_cgroup(path: str) -> Iterator[int]:
    top = _cgroup_root() / path
    for directory in (top, *top.rglob("*/")):
        with contextlib.suppress(OSError):
            yield from map(int, (directory / "cgroup.procs").read_text("ascii").split())


def _cgroup_root() -> Path:
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, point, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(point)
    return Path("/sys/fs/cgroup")


# ---- what they use


def _processes(pids: Iterable[int]) -> tuple[dict[Hashable, float], int]:
    """Return seconds of CPU of each process, and bytes of memory of all."""
    cpu: dict[Hashable, float] = {}
    memory = 0
    for pid in pids:
        with contextlib.suppress(*_GONE):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                # A container's first process is often a child of nobody that counts.
                cpu[pid, process.create_time()] = times.user + times.system
            memory += process.memory_full_info().pss
    return cpu, memory


def _sockets(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115  # ten thousand times, maybe
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _established(pids: Iterable[int]) -> set[int]:
    """Return the inodes of established sockets in the namespace that the processes share."""
    texts = (_first(pids, f"net/{name}") for name in ("tcp", "tcp6"))
    return {inode for text in texts for inode in kernel_text.established(text)}


def _interfaces(pids: Iterable[int]) -> Mapping[Hashable, tuple[int, int]]:
    found: dict[Hashable, tuple[int, int]] = {}
    found.update(kernel_text.interfaces(_first(pids, "net/dev")))
    return found


def _first(pids: Iterable[int], name: str) -> str:
    """Return the file of the first process that still runs."""
    for pid in pids:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/{name}").read_text("utf-8")
    return ""


def _host_sockets() -> Mapping[int, tuple[int, int]]:
    try:
        done = subprocess.run(
            [*_SS, "state", "established"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return kernel_text.sockets(done.stdout)


# ---- what they wrote


def _mounts(pid: int | str) -> list[kernel_text.Mount]:
    with contextlib.suppress(OSError):
        return kernel_text.mounts(Path(f"/proc/{pid}/mountinfo").read_text("utf-8"))
    return []


def _sizes(pids: Iterable[int], ours: list[kernel_text.Mount]) -> tuple[int | None, int | None]:
    """Return the sizes of temporary and lasting mounts; None where nothing is mounted."""
    seen = {_inode("/proc/self/ns/mnt"), 0}
    parts: dict[tuple[bool, tuple[str, str]], int] = {}
    for pid in pids:
        namespace = _inode(f"/proc/{pid}/ns/mnt")
        if namespace in seen:
            continue
        seen.add(namespace)
        for mount in kernel_text.own_mounts(_mounts(pid), ours):
            if (amount := _size(pid, mount)) is not None:
                parts[mount.is_temporary, mount.what] = amount
    return _sum(parts, temporary=True), _sum(parts, temporary=False)


def _sum(parts: Mapping[tuple[bool, tuple[str, str]], int], *, temporary: bool) -> int | None:
    chosen = [amount for (kind, _), amount in parts.items() if kind is temporary]
    return sum(chosen) if chosen else None


def _size(pid: int, mount: kernel_text.Mount) -> int | None:
    """Return bytes on disk; None for a single file, which is no volume, and for what is not
    visible."""
    inside = Path(f"/proc/{pid}/root{mount.point}")
    try:
        if mount.upper:
            return _walk(Path(mount.upper))
        if not inside.is_dir():
            return None
        if mount.kind == "tmpfs" and mount.root == "/":
            found = os.statvfs(inside)
            return (found.f_blocks - found.f_bfree) * found.f_frsize
        return _walk(inside)
    except OSError:
        return None


def _walk(top: Path) -> int:
    """Return the size as ``du -x`` counts: a file with several names once, no other file
    systems."""
    device = top.stat().st_dev
    seen: set[int] = set()
    total, todo = 0, [str(top)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_dev != device or status.st_ino in seen:
                    continue
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
                total += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return total
