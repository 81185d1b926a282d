"""What no request reaches is told from the conditions of the plan."""

from __future__ import annotations

import pytest

from meshd.compile.comparison.reach import destinations, unreached
from meshd.compile.plan.routes import DirectResponse, Forward, Mirror, Route, Target
from meshd.matching.conditions import HeaderMatch, QueryMatch, RouteMatch, TextMatch

A = TextMatch("prefix", "/a")
AB = TextMatch("exact", "/a/b")
USER = HeaderMatch("user", TextMatch("exact", "jason"))


def routes(*matches: RouteMatch) -> list[Route]:
    return [Route(name="", match=match, action=DirectResponse(200)) for match in matches]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RouteMatch(), RouteMatch(A)),
        (RouteMatch(TextMatch("regex", ".*")), RouteMatch(A)),
        (RouteMatch(A), RouteMatch(A)),
        (RouteMatch(A), RouteMatch(AB)),
        (RouteMatch(TextMatch("prefix", "/A", ignore_case=True)), RouteMatch(AB)),
        (RouteMatch(A), RouteMatch(AB, (USER,))),
        (RouteMatch(A, (USER,)), RouteMatch(AB, (USER, HeaderMatch("x")))),
        (RouteMatch(A, query=(QueryMatch("q"),)), RouteMatch(AB, query=(QueryMatch("q"),))),
        (RouteMatch(TextMatch("prefix", "/")), RouteMatch(TextMatch("regex", "/x.*"))),
        (RouteMatch(TextMatch("regex", "/a.*")), RouteMatch(AB)),
    ],
)
def test_a_route_after_one_that_takes_its_requests_is_not_reached(
    first: RouteMatch, second: RouteMatch
) -> None:
    assert list(unreached(routes(first, second))) == [1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RouteMatch(AB), RouteMatch(A)),
        (RouteMatch(A, (USER,)), RouteMatch(AB)),
        (RouteMatch(A), RouteMatch(TextMatch("prefix", "/A"))),
        (RouteMatch(A), RouteMatch(TextMatch("prefix", "/a/b", ignore_case=True))),
        (RouteMatch(A), RouteMatch(TextMatch("regex", "/a.*"))),
        (RouteMatch(TextMatch("regex", "/a[^b]*")), RouteMatch(AB)),
        (RouteMatch(A, query=(QueryMatch("q"),)), RouteMatch(AB)),
    ],
)
def test_a_route_that_may_get_requests_is_reached(first: RouteMatch, second: RouteMatch) -> None:
    assert not list(unreached(routes(first, second)))


def test_mirrors_are_destinations_and_passing_on_is_none() -> None:
    one, other = "outbound|80||a.example", "outbound|80||b.example"
    action = Forward(
        targets=(Target(one), Target("PassthroughCluster")), mirrors=(Mirror(other, 1),)
    )
    assert list(destinations(Route(name="", action=action))) == [one, other]
