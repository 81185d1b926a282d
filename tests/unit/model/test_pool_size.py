"""The pool has as many proxies and threads as the machine has cores and memory for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.pool_size import PoolSize, pool_size

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("cores", "memory", "members", "workers"),
    [
        (1, 512 * MIB, 2, 1),
        (2, 24 * GIB, 2, 1),
        (3, 4 * GIB, 2, 1),
        (4, 8 * GIB, 2, 2),
        (8, 16 * GIB, 2, 4),
        (16, 64 * GIB, 4, 4),
        (64, 256 * GIB, 4, 8),
        (96, 384 * GIB, 4, 8),
        (8, 512 * MIB, 2, 1),
        (16, 2 * GIB, 2, 4),
        (0, 0, 2, 1),
        (16, 0, 4, 4),
    ],
)
def test_the_pool_follows_cores_and_memory(
    cores: int, memory: int, members: int, workers: int
) -> None:
    assert pool_size(cores, memory) == PoolSize(members, workers)


def test_settings_override_the_machine() -> None:
    assert pool_size(16, 64 * GIB, members=1) == PoolSize(1, 8)
    assert pool_size(16, 64 * GIB, workers=1) == PoolSize(4, 1)
    assert pool_size(1, 512 * MIB, members=3, workers=5) == PoolSize(3, 5)


@given(st.integers(2, 1024), st.integers(512 * MIB, 4096 * GIB))
def test_threads_are_no_more_than_cores_and_memory_allow(cores: int, memory: int) -> None:
    size = pool_size(cores, memory)
    assert size.members >= 2
    assert 2 <= size.members * size.workers <= min(cores, memory // (256 * MIB))
