from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import Duration, Key, decode_scalar, encode_scalar


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("1.5s", 1.5),
        ("100ms", 0.1),
        ("1h30m", 5400),
        ("1m0.5s", 60.5),
        ("0s", 0),
        ("10us", 1e-5),
        (".5s", 0.5),
    ],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


NO_DURATIONS = ("", "5", "s", "-1s", "1 s", "1d", "1s ", "x1s", "1,5s", 5, None)


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_text_that_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration such as"):
        Duration.parse(text)


@given(st.integers(0, 10**15))
def test_a_duration_survives_being_written_and_read_back(microseconds: int) -> None:
    duration = Duration(microseconds / 1e6)
    written = msgspec.json.encode(duration, enc_hook=encode_scalar)
    read = msgspec.json.decode(written, type=Duration, dec_hook=decode_scalar)
    assert read == pytest.approx(duration, rel=1e-12)


def test_keys_are_shown_as_people_write_them() -> None:
    assert str(Key("Service", "shop", "reviews")) == "Service shop/reviews"
    assert str(Key("Namespace", "", "shop")) == "Namespace shop"


def test_the_longest_duration_is_one_that_envoy_takes() -> None:
    assert Duration.parse("9223372035s") == 9_223_372_035
    with pytest.raises(ValueError, match="is longer than 9223372035s"):
        Duration.parse("9223372036s")


def test_a_text_of_a_million_digits_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="is not a duration such as"):
        Duration.parse("9" * 10**6)
