"""The cores, memory and open files of this machine, as far as proxies need them."""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from meshd.base.numbers import whole
from meshd.model.capacity import Asked, Capacity, Machine, capacity
from meshd.settings import ProxySettings, Settings

_ROOT: Final = Path("/")
_MEMORY: Final = re.compile(r"^MemTotal:\s+(\d+) kB$", re.M)
_GROUP: Final = re.compile(r"^\d+:([^:\n]*):/(.*)$", re.M)
"""A line of /proc/self/cgroup: the controllers of a hierarchy, none of the unified one, and the
path, which may have colons, too: cgroups(7)."""
_HIERARCHIES: Final = Path("sys/fs/cgroup")


def capacity_here(proxy: ProxySettings) -> Capacity:
    """Return the capacity of each member under the settings, on this machine."""
    asked = Asked(
        proxy.count,
        proxy.memory_limit,
        proxy.max_connections,
        proxy.max_connections_per_workload,
        proxy.concurrency,
    )
    return capacity(asked, read())


def sized(settings: Settings) -> Settings:
    """Return the settings with the pool's size on this machine in place of 0."""
    size = capacity_here(settings.proxy).size
    proxy = msgspec.structs.replace(settings.proxy, count=size.members, concurrency=size.workers)
    return msgspec.structs.replace(settings, proxy=proxy)


def raise_open_files() -> None:
    """Raise the limit of open files to all that this process and its children may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def read(root: Path = _ROOT, usable: int | None = None) -> Machine:
    """Read the machine's figures; ``root`` contains /proc and /sys.

    ``usable`` cores are those that this process may run on.
    """
    if usable is None:
        usable = len(os.sched_getaffinity(0))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    low, _, high = _text(root / "proc/sys/net/ipv4/ip_local_port_range").partition("\t")
    return Machine(
        memory=_memory(root),
        files=files if files != resource.RLIM_INFINITY else 0,
        tracked=_number(_text(root / "proc/sys/net/netfilter/nf_conntrack_max")),
        cores=min((usable, *_quotas(root))),
        ports=_number(high) - _number(low),
    )


def _memory(root: Path) -> int:
    """Return the memory of the machine, or the least that its control groups leave."""
    found = _MEMORY.search(_text(root / "proc/meminfo"))
    limits = [_number(found[1]) * 1024] if found else []
    for group in _groups(root, "memory"):
        limits += [_number(_text(group / name)) for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit), default=0)


def _quotas(root: Path) -> Iterator[int]:
    """Yield for each control group the cores whose time its quota allows, rounded up."""
    for group in _groups(root, "cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = (_text(group / name) for name in names)
        if (time := _number(quota)) and (each := _number(period)):
            yield max(math.ceil(time / each), 1)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield this process's control group in each hierarchy that may have the controller, and those
    that it is in."""
    for controllers, own in _GROUP.findall(_text(root / "proc/self/cgroup")):
        if not controllers:
            places = ["", "unified"]
        else:
            places = [controllers, controller] if controller in controllers.split(",") else []
        for mounted in (root / _HIERARCHIES / place for place in dict.fromkeys(places)):
            group = mounted / own
            yield from (one for one in (group, *group.parents) if one.is_relative_to(mounted))


def _text(path: Path) -> str:
    """Return the text of a file, in which names are as the system has them; empty if there is
    none."""
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    """Return the number in a file; 0 if there is none."""
    return whole(text) or 0
