"""A match that is said to cover another takes each request that the other takes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.matching.conditions import HeaderMatch, QueryMatch, RouteMatch, TextMatch
from meshd.matching.covering import covers, covers_path, covers_text, is_unconditional
from meshd.matching.earlier import Earlier
from meshd.matching.fitting import fits
from meshd.matching.request import Request

PATHS = ("/", "/a", "/A", "/ab", "/a/b", "/a.b", "/1")
VALUES = ("", "a", "A", "ab", "a.b", "1")
REGEXES = (".*", "/.*", "^/.*$", "/a.*", "a.*", "[/a]+", "(?i)/a", "a|b", "/a\\$", "^$", "")
NAMES = ("x", "X", "user-agent")
ASKED = st.builds(
    Request,
    host=st.sampled_from(("a.test", "A.test")),
    path=st.tuples(
        st.sampled_from(PATHS), st.sampled_from(("", "?q=a", "?q=", "?q=ab&q=1", "?x=1"))
    ).map("".join),
    method=st.sampled_from(("GET", "POST")),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3).map(
        tuple
    ),
)


def texts(values: tuple[str, ...]) -> st.SearchStrategy[TextMatch]:
    return st.one_of(
        st.builds(TextMatch, st.just("regex"), st.sampled_from(REGEXES)),
        st.builds(
            TextMatch, st.sampled_from(("exact", "prefix")), st.sampled_from(values), st.booleans()
        ),
    )


PSEUDO = st.builds(
    HeaderMatch,
    st.sampled_from((":method", ":authority", ":scheme")),
    st.none() | texts(("GET", "a.test", "http")),
)
HEADERS = st.builds(HeaderMatch, st.sampled_from(NAMES), st.none() | texts(VALUES), st.booleans())
MATCHES = st.builds(
    RouteMatch,
    texts(PATHS),
    st.lists(PSEUDO | HEADERS, max_size=2).map(tuple),
    st.lists(st.builds(QueryMatch, st.just("q"), st.none() | texts(VALUES)), max_size=1).map(tuple),
)


@given(
    matches=st.lists(MATCHES, min_size=6, max_size=10),
    asked=st.lists(ASKED, min_size=6, max_size=10),
)
@settings(max_examples=100)
@example(
    matches=[
        RouteMatch(headers=(HeaderMatch("x", TextMatch("exact", ""), unwanted=True),)),
        RouteMatch(headers=(HeaderMatch("x", unwanted=True),)),
    ],
    asked=[Request("a.test")],
)
def test_a_match_takes_every_request_of_the_matches_that_it_covers(
    matches: list[RouteMatch], asked: list[Request]
) -> None:
    for wide, narrow in itertools.permutations(matches, 2):
        if covers(wide, narrow):
            assert all(fits(wide, each) for each in asked if fits(narrow, each))
    for match in matches:
        assert not is_unconditional(match) or all(fits(match, each) for each in asked)


@given(match=MATCHES)
def test_each_match_covers_itself(match: RouteMatch) -> None:
    assert covers(match, match)


@given(matches=st.lists(MATCHES, max_size=12))
def test_an_earlier_match_is_found_by_its_path_as_if_all_were_compared(
    matches: list[RouteMatch],
) -> None:
    earlier = Earlier[int]()
    for index, match in enumerate(matches):
        compared = (place for place, one in enumerate(matches[:index]) if covers(one, match))
        assert earlier.add(match, index) == next(compared, None)


def test_thousands_of_matches_of_one_path_are_compared_in_part() -> None:
    earlier = Earlier[int]()
    for index in range(5000):
        header = HeaderMatch("x", TextMatch("exact", str(index)))
        assert earlier.add(RouteMatch(headers=(header,)), index) is None


@pytest.mark.parametrize("pattern", [".*", "/.*", "^/.*", "/.*$", "^.*$"])
def test_a_regular_expression_for_all_paths_takes_every_path(pattern: str) -> None:
    every = TextMatch("regex", pattern)
    assert covers_path(every, TextMatch("prefix", "/"))
    assert covers_path(every, TextMatch("regex", "/a[0-9]"))
    assert is_unconditional(RouteMatch(every))


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (TextMatch("regex", "/a.*"), TextMatch("prefix", "/ab")),
        (TextMatch("regex", "/v[12]"), TextMatch("exact", "/v1")),
        (TextMatch("prefix", "/A", ignore_case=True), TextMatch("exact", "/ab", ignore_case=True)),
        (TextMatch("prefix", "/1"), TextMatch("prefix", "/1a", ignore_case=True)),
        (TextMatch("exact", "/A", ignore_case=True), TextMatch("exact", "/a")),
    ],
)
def test_a_wider_condition_covers_a_narrower(wide: TextMatch, narrow: TextMatch) -> None:
    assert covers_text(wide, narrow)
    assert not covers_text(narrow, wide)
