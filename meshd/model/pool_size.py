"""How many proxies a pool has on this machine, and how many threads each. Pure.

There are two proxies at least, so that one takes over when the other dies. Together they have a
thread for each core: more threads than cores cost throughput. The threads of a proxy share its copy
of the configuration, so a larger machine gets more threads first, and more proxies only where each
of two would have many threads.
"""

from __future__ import annotations

import dataclasses
from typing import Final

_MIB: Final = 1024 * 1024
_FEW: Final = 2
_MANY: Final = 4
_CORES_OF_FEW: Final = 8
"""With more cores, there are ``_MANY`` proxies."""
_MOST_THREADS: Final = 8
"""The worker threads of one proxy at most."""
_MEMORY_OF_THREAD: Final = 256 * _MIB
"""Bytes of the machine's memory that a proxy's further thread needs."""


@dataclasses.dataclass(frozen=True, slots=True)
class PoolSize:
    """The members of the pool for traffic, and the worker threads of each."""

    members: int
    workers: int

    def __str__(self) -> str:
        members = "1 proxy" if self.members == 1 else f"{self.members} proxies"
        return f"{members} with {counted(self.workers, 'worker thread')} each"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def pool_size(cores: int, memory: int, *, members: int = 0, workers: int = 0) -> PoolSize:
    """Return the size; ``members`` and ``workers`` that are not 0 are settings, and stay.

    ``cores`` and ``memory`` (bytes) are 0 where they are not known.
    """
    members = members or _members(cores, memory)
    return PoolSize(members, workers or _workers(cores, memory, members))


def _members(cores: int, memory: int) -> int:
    if cores <= _CORES_OF_FEW or _threads_in(memory) < cores:
        return _FEW
    return _MANY


def _workers(cores: int, memory: int, members: int) -> int:
    return max(min(cores // members, _threads_in(memory) // members, _MOST_THREADS), 1)


def _threads_in(memory: int) -> int:
    """Return how many threads the memory suffices for; a large number if it is not known."""
    return memory // _MEMORY_OF_THREAD if memory else 2**31
