"""Wrong clocks are called that, rather than by what follows from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.fleet.joining import clocks

NOW = 1_795_500_000.0
DAY = 24 * 3600.0


def test_a_day_is_told_with_its_direction_and_always_in_the_same_words() -> None:
    assert clocks.difference(NOW + DAY, NOW, "server s") == (
        "this host's clock is 1 day ahead of that of server s, so certificates are expired here: "
        "set the clock that is wrong"
    )
    behind = clocks.difference(NOW - 3 * DAY, NOW, "server s")
    assert "is 3 days behind that of server s, so certificates are not valid yet here" in behind
    assert clocks.difference(NOW - 3 * DAY + 9, NOW + 9, "server s") == behind


@given(st.floats(-1e6, 1e6))
def test_a_difference_that_certificates_allow_for_is_none(off: float) -> None:
    assert bool(clocks.difference(NOW + off, NOW, "s")) is (abs(NOW + off - NOW) > clocks.TOLERANCE)


def test_a_new_certificate_that_is_none_here_blames_the_clock() -> None:
    clocks.check_counts(NOW - 1, NOW + 1, NOW)
    for now, words in ((NOW - 7200, "begins in 2 hours by"), (NOW + DAY, "ended 1 day ago by")):
        with pytest.raises(InvalidInputError, match=f"{words} this host's clock: set the clock"):
            clocks.check_counts(NOW - 1, NOW + 1, now)
