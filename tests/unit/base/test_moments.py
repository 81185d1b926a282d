from __future__ import annotations

import pytest

from meshd.base.moments import age, age_of, date, rfc3339, span

MOMENT = 1_772_357_400.9


def test_a_moment_is_written_in_utc_for_programs_and_for_people() -> None:
    assert rfc3339(MOMENT) == "2026-03-01T09:30:00Z"
    assert date(MOMENT) == "2026-03-01 09:30:00 UTC"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 seconds"), (-61, "1 minute"), (7200, "2 hours"), (-200_000, "2 days")],
)
def test_a_duration_in_a_sentence_is_in_the_largest_unit_that_fits(
    seconds: float, shown: str
) -> None:
    assert span(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")]
)
def test_age_is_in_the_largest_unit_that_fits(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_the_age_of_no_time_is_nothing() -> None:
    assert age_of("yesterday", MOMENT) == ""
