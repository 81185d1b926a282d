"""A proxy that hangs is told from one that is busy, or short of processor time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.supervisor.hang import Silence, Thread, heard, parse


def missed(*threads: Thread) -> Silence:
    silence = None
    for thread in threads:
        silence = heard(silence, thread)
    assert silence
    return silence


@pytest.mark.parametrize(
    ("state", "how"), [("T", "is stopped"), ("t", "is stopped"), ("S", "waits"), ("D", "waits")]
)
def test_a_thread_that_does_not_run_hangs_when_three_answers_were_missed(
    state: str, how: str
) -> None:
    thread = Thread(state, 1.0, 7)
    assert not missed(thread, thread).verdict
    assert how in missed(thread, thread, thread).verdict
    assert missed(thread).is_stopped == (how == "is stopped")


def test_answers_missed_before_it_stopped_do_not_count() -> None:
    running = [Thread("S", 1.0, turn) for turn in range(20)]
    still = running[-1]
    assert not missed(*running, still).verdict
    assert missed(*running, still, still).verdict


@given(st.lists(st.sampled_from("RSD"), min_size=1, max_size=200))
def test_a_thread_that_gets_a_processor_now_and_then_does_not_hang(states: list[str]) -> None:
    threads = [Thread(state, turn * 0.2, turn) for turn, state in enumerate(states)]
    assert not missed(*threads).verdict


def test_a_thread_that_is_refused_a_processor_does_not_hang() -> None:
    assert not missed(*[Thread("R", 1.0, 7)] * 1000).verdict


def test_a_thread_that_runs_without_end_hangs_when_it_had_much_processor_time() -> None:
    assert not missed(Thread("R", 5.0, 1), Thread("R", 64.0, 900)).verdict
    assert "took 61 s" in missed(Thread("R", 5.0, 1), Thread("R", 66.0, 900)).verdict


def test_the_kernels_account_is_read() -> None:
    assert parse("7 (a (b) c) S 1 7", "1500000000 20 42\n") == Thread("S", 1.5, 42)
    assert parse("", "1 2 3") is None
    assert parse("7 (a) S", "1 2") is None
