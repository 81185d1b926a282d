from __future__ import annotations

from itertools import pairwise

import pytest

from meshd.base.backoff import Backoff, spread

BACKOFF = Backoff(0.5, 30.0)


def test_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    pauses = [BACKOFF.pause(failures) for failures in range(1, 20)]

    assert pauses[0] == 0.5
    assert all(later == min(2 * earlier, 30.0) for earlier, later in pairwise(pauses))
    assert pauses[-1] == 30.0


@pytest.mark.parametrize(("failures", "pause"), [(0, 0.5), (10**9, 30.0)])
def test_any_number_of_failures_has_a_wait(failures: int, pause: float) -> None:
    assert BACKOFF.pause(failures) == pause


def test_waits_that_are_spread_differ_and_stay_near() -> None:
    pauses = {spread(10.0) for _ in range(100)}

    assert len(pauses) > 1
    assert all(7.0 <= pause <= 13.0 for pause in pauses)
