"""Weights whose sum Envoy accepts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.envoy.weights import summable

LARGEST = 2**32 - 1


def test_weights_whose_sum_is_small_enough_stay() -> None:
    assert summable([0, 90, LARGEST - 90]) == [0, 90, LARGEST - 90]


@given(st.lists(st.integers(0, LARGEST), min_size=1, max_size=50))
def test_no_sum_is_too_large_and_nothing_loses_its_weight(weights: list[int]) -> None:
    made = summable(weights)

    assert sum(made) <= LARGEST
    assert [bool(one) for one in made] == [bool(one) for one in weights]
    heavy = sum(weights)
    if heavy:
        for one, was in zip(made, weights, strict=True):
            assert abs(one / sum(made) - was / heavy) < 1e-6
