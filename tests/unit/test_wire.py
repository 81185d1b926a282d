"""Bytes that are no message of ours."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd import wire
from meshd.errors import InvalidInputError

KNOWN = wire.encode(wire.Unregister(("default.web",)))[4:]


def test_what_was_encoded_is_read_back() -> None:
    assert wire.decode(KNOWN) == wire.Unregister(("default.web",))


@given(st.binary())
def test_any_other_bytes_are_refused_in_our_words(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not a message of this version of meshd"):
        wire.decode(body)


@given(st.integers(0, len(KNOWN) - 1), st.integers(0, 255))
def test_no_damage_of_a_message_raises_anything_else(place: int, byte: int) -> None:
    damaged = bytearray(KNOWN)
    damaged[place] = byte

    with contextlib.suppress(InvalidInputError):
        wire.decode(bytes(damaged))
