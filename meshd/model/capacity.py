"""How much a proxy may hold on this machine: computed from what exists, never assumed. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Final

from meshd.model.pool_size import PoolSize, counted, pool_size

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
IDLE_CONNECTION: Final = 42 * _KIB
"""Bytes of heap for a connection on which nothing happens."""
UNREAD_CONNECTION: Final = 256 * _KIB
"""Bytes of heap for one all of whose buffers are full."""
_LARGEST_HEAP: Final = 1024 * _MIB
"""Bytes of heap for each worker thread at most."""
_SMALLEST_HEAP: Final = 64 * _MIB
_OWN_FILES: Final = 256
"""Open files of a proxy without any connection: its own, and the listeners of its workloads."""
_MANY_FILES: Final = 2**30
_FILES_EACH: Final = 2
"""Of a connection: from its client, and to where it goes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """The machine's resources. 0: it could not be read."""

    memory: int = 0
    """Bytes, of the machine or of the control group that meshd runs in."""
    files: int = 0
    """Files that a process may have open, RLIMIT_NOFILE."""
    tracked: int = 0
    """Connections that the kernel keeps account of, ``nf_conntrack_max``."""
    ports: int = 0
    """Ports for outgoing connections, ``ip_local_port_range``."""
    cores: int = 0
    """Cores that this process may run on and whose time its control group may use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """The settings; 0: as this machine allows."""

    count: int
    """Members of the pool."""
    memory_limit: int = 0
    """MiB of each member."""
    max_connections: int = 0
    """Of each member."""
    max_connections_per_workload: int = 0
    """That it opens, over all members."""
    concurrency: int = 0
    """Worker threads of each member."""


@dataclasses.dataclass(frozen=True, slots=True)
class Capacity:
    """The capacity of each member of the pool."""

    size: PoolSize
    cores: int
    """Cores that the members share."""
    heap: int
    """Bytes."""
    connections: int
    """From clients."""
    workload_connections: int
    """Of them, opened by one workload."""
    upstream_connections: int
    """To one cluster."""
    warnings: tuple[str, ...] = ()
    """What was asked for, and what this machine has in its place."""
    memory: int = 0
    """Bytes that there are for all that meshd runs; 0: not known."""

    def __str__(self) -> str:
        memory = f" and {self.memory // _MIB} MiB" if self.memory else ""
        return (
            f"{self.size}, for {counted(self.cores, 'core')}{memory}; {self.heap // _MIB} MiB and"
            f" {self.connections} connections for each proxy,"
            f" {self.workload_connections} of which one workload may open"
        )


def capacity(asked: Asked, machine: Machine) -> Capacity:
    size = pool_size(machine.cores, machine.memory, members=asked.count, workers=asked.concurrency)
    count = size.members
    heap = _heap(asked, machine, size)
    by_memory = heap // 2 // IDLE_CONNECTION
    by_files = _files(machine) // _FILES_EACH
    connections = min(asked.max_connections or by_memory, by_memory, by_files)
    share = min(heap // 4 // UNREAD_CONNECTION, connections // 2)
    wanted = math.ceil(asked.max_connections_per_workload / count)
    workload_connections = max(min(wanted or share, connections), 1)
    upstream = _files(machine) - connections
    found = Capacity(size, machine.cores, heap, connections, workload_connections, upstream)
    warnings = (
        *_of_memory(asked, machine, heap, count),
        *_of_connections(asked, machine, count, by_memory, by_files),
        *_of_kernel(machine, workload_connections * count),
    )
    return dataclasses.replace(found, warnings=warnings, memory=machine.memory)


def _heap(asked: Asked, machine: Machine, size: PoolSize) -> int:
    """Return half of the memory divided among all members; three quarters at most if asked for."""
    count, largest = size.members, _LARGEST_HEAP * size.workers
    if not machine.memory:
        return asked.memory_limit * _MIB or largest
    if asked.memory_limit:
        return min(asked.memory_limit * _MIB, machine.memory * 3 // 4 // count)
    return max(min(largest, machine.memory // 2 // count), _SMALLEST_HEAP)


def _files(machine: Machine) -> int:
    """Return the files that are left for connections."""
    return max(machine.files - _OWN_FILES, _FILES_EACH) if machine.files else _MANY_FILES


def _of_memory(asked: Asked, machine: Machine, heap: int, count: int) -> Iterator[str]:
    if asked.memory_limit * _MIB > heap:
        yield (
            f"setting proxy.memory_limit: {count} proxies of {asked.memory_limit} MiB do not fit"
            f" into the {machine.memory // _MIB} MiB that there are: each has {heap // _MIB} MiB"
        )


def _of_connections(
    asked: Asked, machine: Machine, count: int, by_memory: int, by_files: int
) -> Iterator[str]:
    allowed = min(by_memory, by_files)
    files = f"a process may have {machine.files} files open (RLIMIT_NOFILE)"
    if asked.max_connections > allowed:
        reason = files if by_files < by_memory else "its memory_limit suffices for no more"
        yield (
            f"setting proxy.max_connections is {asked.max_connections}, but {reason}: a proxy takes"
            f" {allowed} connections and refuses others"
        )
    elif by_files < min(by_memory, asked.max_connections or by_memory):
        yield (
            f"{files}: a proxy takes {by_files} connections and refuses others, where its memory"
            f" suffices for {by_memory}; raise LimitNOFILE= of meshd's unit, or ulimit -Hn"
        )
    together = min(allowed, asked.max_connections or allowed) * count
    if asked.max_connections_per_workload > together:
        yield (
            f"setting proxy.max_connections_per_workload is {asked.max_connections_per_workload},"
            f" but all proxies together take {together}"
        )


def _of_kernel(machine: Machine, connections: int) -> Iterator[str]:
    """Yield warnings about what the kernel keeps for each of a workload's ``connections``, too."""
    needed = _FILES_EACH * connections
    if 0 < machine.tracked < needed:
        yield (
            f"net.netfilter.nf_conntrack_max is {machine.tracked}, and a workload may have"
            f" {connections} connections in each direction, each of which is tracked twice:"
            f" raise it to {2 * needed}"
        )
    if 0 < machine.ports < connections:
        yield (
            f"net.ipv4.ip_local_port_range has {machine.ports} ports, and a workload may open"
            f" {connections} connections: widen it"
        )
