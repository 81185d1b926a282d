"""The memory and open files of this machine, as far as proxies need them."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Final

from meshd.base.numbers import whole
from meshd.model.capacity import Asked, Capacity, Machine, capacity
from meshd.settings import ProxySettings

_ROOT: Final = Path("/")
_MEMORY: Final = re.compile(r"^MemTotal:\s+(\d+) kB$", re.M)
_HIERARCHIES: Final = (
    ("0::", "sys/fs/cgroup", "memory.max"),
    ("0::", "sys/fs/cgroup/unified", "memory.max"),
    (":memory:", "sys/fs/cgroup/memory", "memory.limit_in_bytes"),
)
"""How a line of /proc/self/cgroup names a hierarchy, where it is mounted, and the file of a control
group that holds its limit: cgroups(7)."""


def capacity_here(proxy: ProxySettings) -> Capacity:
    """Return the capacity of each member under the settings, on this machine."""
    asked = Asked(
        proxy.count,
        proxy.memory_limit,
        proxy.max_connections,
        proxy.max_connections_per_workload,
    )
    return capacity(asked, read())


def raise_open_files() -> None:
    """Raise the limit of open files to all that this process and its children may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def read(root: Path = _ROOT) -> Machine:
    """Read the machine's figures; ``root`` contains /proc and /sys."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    low, _, high = _text(root / "proc/sys/net/ipv4/ip_local_port_range").partition("\t")
    return Machine(
        memory=_memory(root),
        files=files if files != resource.RLIM_INFINITY else 0,
        tracked=_number(_text(root / "proc/sys/net/netfilter/nf_conntrack_max")),
        ports=_number(high) - _number(low),
    )


def _memory(root: Path) -> int:
    """Return the memory of the machine, or the least that its control groups leave."""
    found = _MEMORY.search(_text(root / "proc/meminfo"))
    limits = [_number(found[1]) * 1024] if found else []
    own = _text(root / "proc/self/cgroup").splitlines()
    for mark, mounted, name in _HIERARCHIES:
        line = next((line for line in own if mark in line), "")
        place = root / mounted / line.rpartition(":")[2].lstrip("/")
        for group in (place, *place.parents):
            if line and group.is_relative_to(root / mounted):
                limits.append(_number(_text(group / name)))
    return min((limit for limit in limits if limit), default=0)


def _text(path: Path) -> str:
    """Return the text of a file; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    """Return the number in a file; 0 if there is none."""
    return whole(text) or 0
