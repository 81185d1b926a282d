"""Short names, wildcards and what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.hosts import covers, resolve
from meshd.compile.hosts import forms, specificity

DOMAIN = "cluster.local"
KNOWN = {"reviews.default.svc.cluster.local", "reviews.shop.svc.cluster.local", "example.com"}
PATTERNS = st.sampled_from(
    ["*", "*.com", "*.example.com", "a.example.com", "b.a.example.com", "example.com", "a.org"]
)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("unknown", "unknown.shop.svc.cluster.local"),
        ("reviews.default", "reviews.default.svc.cluster.local"),
        ("reviews.default.svc", "reviews.default.svc.cluster.local"),
        ("reviews.default.svc.cluster.local", "reviews.default.svc.cluster.local"),
        ("Reviews", "reviews.shop.svc.cluster.local"),
        ("example.com", "example.com"),
        ("example.org", "example.org"),
        ("*", "*"),
        ("*.com", "*.com"),
    ],
)
def test_name_is_resolved_from_the_objects_own_namespace(written: str, host: str) -> None:
    assert resolve(written, "shop", DOMAIN, KNOWN) == host


def test_only_clients_of_the_same_namespace_use_the_shortest_name() -> None:
    host = "reviews.default.svc.cluster.local"

    assert forms(host, "default", DOMAIN) == (
        host,
        "reviews",
        "reviews.default",
        "reviews.default.svc",
    )
    assert "reviews" not in forms(host, "other", DOMAIN)


@pytest.mark.parametrize("host", ["example.com", "*.default.svc.cluster.local", "*"])
def test_a_host_outside_the_cluster_has_one_name(host: str) -> None:
    assert forms(host, "default", DOMAIN) == (host,)


@given(st.lists(PATTERNS))
def test_more_specific_patterns_come_first(patterns: list[str]) -> None:
    ordered = sorted(patterns, key=specificity)

    for index, first in enumerate(ordered):
        for later in ordered[index + 1 :]:
            assert first == later or not covers(first, later)
