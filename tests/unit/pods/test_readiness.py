"""When a container is ready, and how long a crashed one waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.api.kubernetes.types import Probe
from meshd.pods.readiness import Readiness, Restarts

RESULTS = st.lists(st.booleans(), max_size=30)


def after(results: list[bool], probe: Probe) -> Readiness:
    readiness = Readiness()
    for passed in results:
        readiness = readiness.after(passed, probe)
    return readiness


@given(RESULTS, st.integers(1, 4), st.integers(1, 4))
def test_ready_means_that_the_last_run_long_enough_passed(
    results: list[bool], success: int, failure: int
) -> None:
    probe = Probe(success_threshold=success, failure_threshold=failure)
    ready = False
    for index in range(len(results)):
        seen = results[: index + 1]
        if len(seen) >= success and all(seen[-success:]):
            ready = True
        elif len(seen) >= failure and not any(seen[-failure:]):
            ready = False
    assert after(results, probe).ready is ready


def test_nobody_waits_a_whole_period_for_the_first_success() -> None:
    probe = Probe(period_seconds=10)
    assert after([False], probe).pause(probe) < 1
    assert after([True], probe).pause(probe) == 10


@given(st.lists(st.floats(0, 59), min_size=1, max_size=20))
def test_a_container_that_keeps_crashing_waits_longer_each_time_up_to_a_limit(
    lives: list[float],
) -> None:
    restarts, pauses = Restarts(), [0.0]
    for lived in lives:
        restarts = restarts.after(lived)
        pauses.append(restarts.pause)
    assert pauses == sorted(pauses)
    assert pauses[1] > 0
    assert pauses[-1] <= 30


def test_a_container_that_ran_well_begins_again_with_the_shortest_pause() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts = restarts.after(1)
    assert restarts.after(3600) == Restarts().after(1)
