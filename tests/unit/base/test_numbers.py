"""Numbers in the text of others."""

from __future__ import annotations

import pytest

from meshd.base.numbers import MOST, whole


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("080", 80), ("65535", 65535), ("0" * 9000 + "7", 7)]
)
def test_decimal_digits_are_a_number(text: str, number: int) -> None:
    assert whole(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", " 1", "1 ", "1_0", "0x1", "1.0", "\u00b2", "\u0663", "9" * 9000]
)
def test_a_text_that_is_no_whole_number_gives_none(text: str) -> None:
    assert whole(text) is None


def test_the_most_that_is_taken_can_be_said() -> None:
    assert whole(str(MOST)) == MOST
    assert whole(str(MOST + 1)) is None
    assert whole("65535", 65535) == 65535
    assert whole("65536", 65535) is None
