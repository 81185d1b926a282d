"""explain: what is asked, and how the answer is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd import wire

EXPLANATION = wire.Explanation(
    stages=(wire.Step("capture", "redirected to 15001"), wire.Step("route", "reviews/0")),
    verdict="routed",
    cluster="outbound|9080|v1|reviews",
    endpoints=("198.18.0.7:9080",),
    identity="spiffe://cluster.local/ns/default/sa/web",
)


@pytest.fixture(autouse=True)
def answers(daemon: Any) -> None:
    daemon.says(EXPLANATION)


def test_the_request_is_described_in_full(daemon: Any, meshctl: Any) -> None:
    meshctl(
        *("explain", "web", "reviews:9080", "-n", "shop", "--path", "/r", "--method", "POST"),
        *("--header", "end-user=john", "--header", "cookie=a=b"),
    )
    assert daemon.asked == [
        wire.Explain(
            "web", "reviews:9080", "shop", "/r", "POST", (("end-user", "john"), ("cookie", "a=b"))
        )
    ]


@pytest.mark.parametrize(
    ("written", "destination", "path"),
    [
        ("web", "web", "/"),
        ("http://web/x?y=1", "web:80", "/x?y=1"),
        ("https://web.shop", "web.shop:443", "/"),
        ("http://web:9080/", "web:9080", "/"),
        ("http://[fd00::1]/a", "[fd00::1]:80", "/a"),
    ],
)
def test_explain_takes_destination_and_path_from_a_url(
    daemon: Any, meshctl: Any, written: str, destination: str, path: str
) -> None:
    meshctl("explain", "web", written)
    (asked,) = daemon.asked
    assert (asked.destination, asked.path) == (destination, path)


@pytest.mark.parametrize("written", ["ftp://web/x", "http:///x", "http://web:port/"])
def test_text_that_is_no_url_is_wrong_usage(daemon: Any, meshctl: Any, written: str) -> None:
    assert meshctl("explain", "web", written).code == 2
    assert daemon.asked == []


def test_every_stage_is_a_line(meshctl: Any) -> None:
    result = meshctl("explain", "web", "reviews:9080")
    assert result.code == 0
    assert "capture   redirected to 15001" in result.lines
    assert "verdict:   routed" in result.lines
    assert "endpoints: 198.18.0.7:9080" in result.lines


def test_json_has_the_documented_fields(meshctl: Any) -> None:
    value = json.loads(meshctl("explain", "web", "reviews:9080", "-o", "json").out)
    assert list(value) == ["stages", "verdict", "cluster", "endpoints", "identity"]
    assert value["stages"][0] == {"stage": "capture", "detail": "redirected to 15001"}
