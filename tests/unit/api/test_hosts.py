"""Patterns of host names, and those that overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.hosts import HostIndex, common, covers

LABELS = st.lists(st.sampled_from(["a", "b", "ab", "com"]), max_size=4).map(".".join)
PATTERNS = st.tuples(st.sampled_from(["", "*", "*."]), LABELS).map("".join)


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("*", "a.com", True),
        ("*", "*.com", True),
        ("*.com", "*", False),
        ("*.com", "a.com", True),
        ("*.com", "*.a.com", True),
        ("*.com", "*.com", True),
        ("*.a.com", "*.com", False),
        ("*.com", "com", False),
        ("*.com", ".com", True),
        ("a.com", "*.com", False),
        ("a.com", "b.a.com", False),
    ],
)
def test_wildcard_covers_names_with_its_ending(pattern: str, host: str, *, covered: bool) -> None:
    assert covers(pattern, host) is covered


@given(PATTERNS, PATTERNS)
def test_what_two_patterns_have_in_common_is_covered_by_both(one: str, other: str) -> None:
    shared = common(one, other)
    assert shared == common(other, one)
    assert (shared is None) is (not covers(one, other) and not covers(other, one))
    if shared is not None:
        assert covers(one, shared)
        assert covers(other, shared)


@given(st.lists(PATTERNS), PATTERNS)
def test_index_finds_what_a_look_at_each_pattern_finds(patterns: list[str], wanted: str) -> None:
    index, once = HostIndex(patterns), list(dict.fromkeys(patterns))
    overlapping = [one for one in once if common(one, wanted) is not None]
    assert index.overlapping(wanted) == overlapping
    assert index.overlaps(wanted) is bool(overlapping)
    assert index.covered(wanted) == [one for one in once if covers(wanted, one)]
    assert index.covers(wanted) is any(covers(one, wanted) for one in once)
