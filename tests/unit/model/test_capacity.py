"""What a proxy may hold follows from the machine, and what cannot be had is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.capacity import (
    IDLE_CONNECTION,
    UNREAD_CONNECTION,
    Asked,
    Capacity,
    Machine,
    capacity,
)
from meshd.model.pool_size import PoolSize

MIB = 1024 * 1024
GIB = 1024 * MIB
LARGE = Machine(memory=24 * GIB, files=1_048_576, tracked=262_144, ports=28_232)

NUMBERS = st.integers(0, 10_000_000)
ASKED = st.builds(Asked, st.integers(1, 64), st.integers(0, 1024 * 1024), NUMBERS, NUMBERS)
MACHINES = st.builds(
    Machine,
    st.just(0) | st.integers(256 * MIB, 1024 * GIB),
    st.just(0) | st.integers(300, 2**31),
    st.integers(0, 2**31),
    st.integers(0, 65535),
)


@pytest.mark.parametrize(
    ("memory", "count", "heap"),
    [(24 * GIB, 2, 1024), (2 * GIB, 2, 512), (GIB, 2, 256), (2 * GIB, 4, 256), (64 * MIB, 4, 64)],
)
def test_half_of_the_memory_is_divided_among_the_members(
    memory: int, count: int, heap: int
) -> None:
    found = capacity(Asked(count), Machine(memory, 1_048_576))
    assert found.heap == heap * MIB
    assert not found.warnings


def test_a_proxy_with_more_threads_may_hold_more() -> None:
    found = capacity(Asked(0), Machine(64 * GIB, 1_048_576, cores=16))
    assert found.size == PoolSize(4, 4)
    assert found.heap == 4 * GIB
    assert str(found).startswith(
        "4 proxies with 4 worker threads each, for 16 cores and 65536 MiB; 4096 MiB and "
    )


def test_a_machine_with_one_core_has_two_proxies_of_one_thread() -> None:
    found = capacity(Asked(0), Machine(512 * MIB, 1_048_576, cores=1))
    assert (found.size, found.heap) == (PoolSize(2, 1), 128 * MIB)
    assert str(found).startswith(
        "2 proxies with 1 worker thread each, for 1 core and 512 MiB; 128 MiB and "
    )


def test_memory_that_is_not_known_is_not_named() -> None:
    found = capacity(Asked(0), Machine(files=1_048_576, cores=4))
    assert str(found).startswith("2 proxies with 2 worker threads each, for 4 cores; ")


def test_a_large_machine_has_what_is_documented() -> None:
    found = capacity(Asked(2), LARGE)
    assert (found.connections, found.workload_connections) == (12_483, 1024)
    assert not found.warnings


def test_few_open_files_mean_few_connections_and_are_named() -> None:
    found = capacity(Asked(2, max_connections=50_000), Machine(24 * GIB, 1024))
    assert found.connections * 2 + 256 <= 1024
    (warning,) = found.warnings
    assert "max_connections is 50000" in warning
    assert "1024 files" in warning
    (unasked,) = capacity(Asked(2), Machine(24 * GIB, 1024)).warnings
    assert "1024 files" in unasked
    assert "takes 384 connections" in unasked


def test_little_memory_means_few_connections_and_is_named() -> None:
    found = capacity(Asked(2, 4096, 50_000), Machine(4 * GIB, 1_048_576))
    assert found.heap == 1536 * MIB
    assert any("4096 MiB do not fit into the 4096 MiB" in line for line in found.warnings)
    assert any("max_connections is 50000" in line for line in found.warnings)


def test_what_a_workload_may_have_is_what_was_asked_for_divided_among_the_members() -> None:
    assert capacity(Asked(2, 0, 0, 5), LARGE).workload_connections == 3
    assert capacity(Asked(1, 0, 0, 5), LARGE).workload_connections == 5
    too_many = capacity(Asked(2, 0, 100, 5000), LARGE)
    assert too_many.workload_connections == 100
    assert any("max_connections_per_workload is 5000" in line for line in too_many.warnings)


def test_what_the_kernel_has_too_little_of_is_named() -> None:
    found = capacity(Asked(2), Machine(24 * GIB, 1_048_576, tracked=1000, ports=100))
    tracked, ports = found.warnings
    assert "nf_conntrack_max is 1000" in tracked
    assert "ip_local_port_range has 100 ports" in ports


@given(ASKED, MACHINES)
def test_no_setting_and_no_machine_makes_a_proxy_hold_more_than_there_is(
    asked: Asked, machine: Machine
) -> None:
    found = capacity(asked, machine)
    assert 0 < found.workload_connections <= found.connections
    assert found.connections * IDLE_CONNECTION <= found.heap
    if machine.files:
        assert found.connections * 2 + found.upstream_connections <= 2 * machine.files
        assert found.connections + found.upstream_connections <= machine.files
    if not asked.max_connections_per_workload and found.workload_connections > 1:
        assert found.workload_connections * UNREAD_CONNECTION <= found.heap // 4
        assert found.workload_connections <= found.connections // 2


@given(ASKED, MACHINES)
def test_it_can_be_said_in_a_line(asked: Asked, machine: Machine) -> None:
    found: Capacity = capacity(asked, machine)
    assert all("\n" not in line for line in (str(found), *found.warnings))
