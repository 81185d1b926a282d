"""The page answers to its own names and to addresses, and to nobody else's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.telemetry.hosts import is_ours, own_names

NAMES = own_names("web-1", "127.0.0.1", ["mesh.example.com"])


@pytest.mark.parametrize(
    "header",
    ["localhost", "LOCALHOST:15020", "127.0.0.1:15020", "[::1]:15020", "198.18.0.1", "web-1:1",
     "mesh.example.com", "mesh.example.com.:80", "[fd00:198::1]"],
)  # fmt: skip
def test_own_names_and_addresses_are_served(header: str) -> None:
    assert is_ours(header, NAMES)


@pytest.mark.parametrize(
    "header",
    ["evil.example", "evil.example:15020", "127.0.0.1.evil.example", "localhost.evil.example",
     "localhost:x", "localhost@evil.example", "[::1", "[evil]", "", "127.0.0.1:1:2", "a localhost",
     "mesh.example.com.evil"],
)  # fmt: skip
def test_a_host_header_with_another_name_is_not_ours(header: str) -> None:
    assert not is_ours(header, NAMES)


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_not(text: str) -> None:
    assert isinstance(is_ours(text, NAMES), bool)
