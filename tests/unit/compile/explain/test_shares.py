"""The shares that explain tells of several upstreams."""

from __future__ import annotations

import pytest

from meshd.compile.explain.shares import shares


@pytest.mark.parametrize(
    ("upstreams", "told"),
    [
        ([("a", 0)], {"a": 100}),
        ([("a", 1), ("b", 3)], {"a": 25, "b": 75}),
        ([("a", 1), ("b", 0)], {"a": 100, "b": 0}),
        ([("a", 1), ("b", 2), ("a", 1)], {"a": 50, "b": 50}),
        ([("a", 0), ("b", 0)], {"a": 0, "b": 0}),
        ([], {}),
    ],
)
def test_shares_follow_from_weights(
    upstreams: list[tuple[str, int]], told: dict[str, float]
) -> None:
    assert shares(upstreams) == told
