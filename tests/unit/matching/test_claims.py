"""Conditions of routes on claims of tokens."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.api.virtual_service.types import HTTPMatchRequest, StringMatch, claim_names
from meshd.matching.covering import covers
from meshd.matching.fitting import fits
from meshd.matching.reading import route_match
from meshd.matching.request import Request

PREFIX = "@request.auth.claims"


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (f"{PREFIX}.group", ("group",)),
        (f"{PREFIX}.a.b", ("a", "b")),
        ("@Request.Auth.Claims.Group", ("Group",)),
        (f"{PREFIX}[a][b.c]", ("a", "b.c")),
        (f"{PREFIX}[a", ()),
        (f"{PREFIX}[a]b", ()),
        (f"{PREFIX}[]", ()),
        (f"{PREFIX}.a..b", ()),
        ("x-group", ()),
    ],
)
def test_a_claim_is_named_by_dots_or_brackets(header: str, names: tuple[str, ...]) -> None:
    assert claim_names(header) == names


CASES: list[tuple[StringMatch, dict[str, Any] | None, bool]] = [
    (StringMatch(exact="a"), {"g": "a"}, True),
    (StringMatch(exact="a"), {"g": ["b", "a"]}, True),
    (StringMatch(exact="a"), {"g": "b"}, False),
    (StringMatch(exact="a"), {"g": {"a": "a"}}, False),
    (StringMatch(exact="1"), {"g": 1}, False),
    (StringMatch(prefix="a"), {"g": "abc"}, True),
    (StringMatch(regex="a.c"), {"g": "abc"}, True),
    (StringMatch(), {"g": 1}, True),
    (StringMatch(), {"h": 1}, False),
    (StringMatch(exact="a"), {}, False),
    (StringMatch(exact="a"), None, False),
]


@pytest.mark.parametrize(("text", "claims", "expected"), CASES)
def test_a_claim_is_a_text_or_one_of_a_list(
    text: StringMatch, claims: dict[str, Any] | None, expected: bool
) -> None:
    asked = Request("a.test", claims=claims)
    wanted = HTTPMatchRequest(headers={f"{PREFIX}.g": text})
    unwanted = HTTPMatchRequest(without_headers={f"{PREFIX}.g": text})
    assert fits(route_match(wanted), asked) is expected
    assert fits(route_match(unwanted), asked) is not expected


def test_a_route_without_a_claim_covers_one_with_it() -> None:
    with_claim = route_match(HTTPMatchRequest(headers={f"{PREFIX}.g": StringMatch(exact="a")}))
    assert covers(route_match(None), with_claim)
    assert covers(with_claim, with_claim)
    assert not covers(with_claim, route_match(None))
