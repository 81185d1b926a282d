"""What a neighbour has waited is summed up, whether or not anything was answered."""

from __future__ import annotations

import math

from tests.bench.attacks import figures, ratios


def test_failures_are_counted_and_each_reason_is_named_once() -> None:
    found = figures([0.003, 0.001, 0.002], ["timed out", "timed out"])

    assert (found["count"], found["failed"], found["failures"]) == (5, 2, ["timed out"])
    assert (found["p50"], found["p99"]) == (0.002, 0.003)


def test_a_kind_of_which_nothing_was_answered_is_infinitely_slower() -> None:
    before = {"new": figures([0.002], [])}
    during = {"new": figures([], ["refused"])}

    assert ratios(before, during) == {"new": math.inf}
