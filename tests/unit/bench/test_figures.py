"""Ratios are of rounds, and carry both sides."""

from __future__ import annotations

import pytest

from tests.bench.cost import per_workload, product
from tests.bench.enrolment import STEPS, durations
from tests.bench.figures import Json, Ratio, Series, percentile


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    ours = Series("ours", "requests/s", (10, 100, 30))
    theirs = Series("theirs", "requests/s", (20, 50, 10))

    found = Ratio("ours/theirs", ours, theirs).as_json()

    assert found["values"] == [0.5, 2, 3]
    assert (found["min"], found["median"], found["max"], found["rounds"]) == (0.5, 2, 3, 3)
    assert (found["numerator"]["median"], found["denominator"]["median"]) == (30, 20)
    assert found["numerator"]["unit"] == "requests/s"


def test_sides_with_different_rounds_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="zip"):
        Ratio("x", Series("a", "s", (1, 2)), Series("b", "s", (1,))).as_json()


def test_the_95th_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5, 1, 4, 2, 3], 0.95) == 5
    assert percentile([1], 0.95) == 1


def _row(workloads: int, services: int, size: int) -> Json:
    sizes = {"private": size, "allocated": size}
    return {"workloads": workloads, "services": services, "pool": sizes}


def test_memory_of_one_more_workload_leaves_the_services_out() -> None:
    rows = [_row(10, 1, 1000), _row(20, 1, 3000), _row(20, 5, 9000), _row(10, 5, 8000)]

    assert per_workload(rows, 10, 20) == 200


def test_memory_that_grows_with_the_sum_has_no_product() -> None:
    rows = [_row(w, s, 7 * w + 3 * s) for w, s in ((10, 1), (20, 1), (20, 5), (10, 5))]

    assert product(rows, 10, 20, 5) == 0


def test_memory_that_grows_with_the_product_shows_it() -> None:
    rows = [_row(w, s, 2 * w * s + 7 * w) for w, s in ((10, 1), (20, 1), (20, 5), (10, 5))]

    assert product(rows, 10, 20, 5) == 2


def test_the_steps_of_an_enrolment_add_up_to_the_whole() -> None:
    moments = {"asked": 1.0} | {step: 2.0 + at for at, step in enumerate(STEPS)}

    found = durations(moments)

    assert tuple(found) == STEPS
    assert sum(found.values()) == moments["answer"] - moments["asked"]
