"""Counters become rates and sums, whatever begins or ends between two looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.telemetry.usage import Order, Sample, Usage, compare, ordered, size

counters = st.dictionaries(st.integers(0, 5), st.floats(0, 1e9), max_size=5)


def usage(before: Sample | None, now: Sample) -> Usage:
    return compare("default", "web", before, now)


def test_cpu_is_what_was_used_between_two_looks_and_100_is_one_core() -> None:
    before = Sample(taken=10.0, cpu={"a": 5.0, "b": 1.0})
    now = Sample(taken=12.0, cpu={"a": 7.0, "b": 2.0})
    assert usage(before, now).cpu_percent == pytest.approx(150)


def test_a_process_that_began_counts_from_its_beginning_and_one_that_ended_no_more() -> None:
    before = Sample(taken=0.0, cpu={"ended": 100.0})
    now = Sample(taken=1.0, cpu={"began": 0.25})
    assert usage(before, now).cpu_percent == pytest.approx(25)


def test_a_first_look_has_sums_but_no_rates() -> None:
    row = usage(None, Sample(taken=1.0, received={"eth0": 100, "eth1": 20}, sent={"eth0": 7}))
    assert (row.received, row.sent) == (120, 7)
    assert row.received_per_second is None
    assert row.cpu_percent == 0


def test_bytes_have_a_rate() -> None:
    before = Sample(taken=0.0, received={"eth0": 100}, sent={"eth0": 0})
    now = Sample(taken=4.0, received={"eth0": 500}, sent={"eth0": 8})
    row = usage(before, now)
    assert (row.received_per_second, row.sent_per_second) == (100, 2)


def test_an_interface_made_anew_under_its_name_counts_from_zero() -> None:
    row = usage(
        Sample(taken=0.0, received={"eth0": 1_000_000}), Sample(taken=1.0, received={"eth0": 50})
    )
    assert row.received_per_second == 50


def test_figures_that_the_kernel_does_not_tell_stay_unknown() -> None:
    row = usage(Sample(taken=0.0), Sample(taken=1.0))
    assert (row.received, row.sent, row.received_per_second, row.disk) == (None, None, None, None)


@given(counters, counters, st.floats(0, 100))
def test_no_rate_is_ever_negative(
    before: dict[Hashable, float], now: dict[Hashable, float], seconds: float
) -> None:
    first = Sample(taken=0.0, cpu=before, received=before)
    row = usage(first, Sample(taken=seconds, cpu=now, received=now))
    assert row.cpu_percent >= 0
    assert row.received_per_second is None or row.received_per_second >= 0


def test_rows_are_sorted_by_what_is_asked_for_and_by_name_where_that_is_equal() -> None:
    plain = usage(None, Sample(taken=0.0))
    rows = [
        dataclasses.replace(plain, workload=name, memory=memory)
        for name, memory in (("b", 5), ("c", 9), ("a", 5))
    ]
    assert [row.workload for row in ordered(rows, Order.MEMORY)] == ["c", "a", "b"]
    assert [row.workload for row in ordered(rows, Order.NAME)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, ""),
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.23kB"),
        (999_999, "1MB"),
        (65_536_000, "65.5MB"),
        (3.2e15, "3200TB"),
    ],
)
def test_sizes_are_written_as_docker_writes_them(amount: float | None, text: str) -> None:
    assert size(amount) == text
