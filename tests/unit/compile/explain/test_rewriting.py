"""What explain says that upstreams receive, and where redirects lead."""

from __future__ import annotations

import pytest

from meshd.compile.explain.rewriting import copied, forwarded, location, told_changes
from meshd.compile.plan.routes import (
    Forward,
    HeaderAddition,
    HeaderChanges,
    Mirror,
    Redirect,
    RegexRewrite,
    Route,
    Target,
)
from meshd.matching.conditions import EVERY_PATH, RouteMatch, TextMatch
from meshd.matching.request import Request


def sent_by(action: Forward, request: Request, match: TextMatch = EVERY_PATH) -> Request:
    route = Route(name="", match=RouteMatch(path=match), action=action)
    return forwarded(route, action, action.targets[0], request)


@pytest.mark.parametrize(
    ("match", "prefix", "path"),
    [
        (TextMatch("prefix", "/a"), "/z", "/z/b?c"),
        (TextMatch("prefix", "/A", ignore_case=True), "/z", "/z/b?c"),
        (TextMatch("prefix", "/a/"), "/", "/b?c"),
        (TextMatch("exact", "/a/b"), "/z", "/z?c"),
        (TextMatch("regex", "/a/.*"), "/z", "/z?c"),
    ],
)
def test_a_prefix_is_replaced_and_the_query_stays(match: TextMatch, prefix: str, path: str) -> None:
    action = Forward(targets=(Target("up"),), prefix_rewrite=prefix)
    sent = sent_by(action, Request("a.test", "/a/b?c"), match)
    assert (sent.host, sent.path) == ("a.test", path)


@pytest.mark.parametrize(
    ("pattern", "substitution", "path"),
    [
        ("a", "z", "/zbz?a"),
        ("^/(.)(x)?.*$", r"/\1\2\\", "/a\\?a"),
        ("b*", "-", "-/-a-a-?a"),
        ("(a)", r"\2", "/aba?a"),
        ("^/a", r"/z\q/y", "/zba?a"),
        ("^/a", "/z\\", "/zba?a"),
    ],
)
def test_a_pattern_is_replaced_wherever_it_matches(
    pattern: str, substitution: str, path: str
) -> None:
    rewrite = RegexRewrite(pattern, substitution)
    action = Forward(targets=(Target("up"),), regex_rewrite=rewrite)
    sent = sent_by(action, Request("a.test", "/aba?a"))
    assert sent.path == path


def test_the_host_of_a_route_wins_over_that_of_its_destination() -> None:
    target = Target("up", host="target.test")
    asked = Request("a.test")
    for host, received in (("route.test", "route.test"), ("", "target.test")):
        action = Forward(targets=(target,), host=host)
        assert sent_by(action, asked).host == received


def test_headers_are_changed_by_the_destination_and_then_by_the_route() -> None:
    def to(name: str, value: str, *, append: bool = False) -> HeaderAddition:
        return HeaderAddition(name, value, append)

    of_target = HeaderChanges((to("X-A", "target"), to("x-b", "b%%"), to("x-c", "")), ("x-gone",))
    of_route = HeaderChanges((to("x-a", "more", append=True), to("x-new", "1")), ("x-b",))
    action = Forward(targets=(Target("up", changes=of_target),))
    route = Route(name="", action=action, changes=of_route)
    asked = Request("a.test", headers=(("x-a", "old"), ("x-gone", "1"), ("x-c", "kept")))

    sent = forwarded(route, action, action.targets[0], asked)

    assert sent.headers == (("x-c", "kept"), ("x-a", "target"), ("x-new", "1"), ("x-a", "more"))
    assert told_changes(asked, sent) == "x-a: target, x-new: 1, x-a: more, no x-gone"
    assert told_changes(asked, asked) == ""


@pytest.mark.parametrize(
    ("host", "copy", "received"),
    [
        ("a.test", Mirror("up", 100), "a.test-shadow"),
        ("a.test:80", Mirror("up", 100), "a.test-shadow:80"),
        ("a.test:80", Mirror("up", 100, looked_up=True), "a.test:80"),
    ],
)
def test_the_host_of_a_copy_says_that_it_is_one(host: str, copy: Mirror, received: str) -> None:
    arrived = copied(Request(host, "/x"), copy)
    assert (arrived.host, arrived.path) == (received, "/x")


@pytest.mark.parametrize(
    ("action", "url"),
    [
        (Redirect(status=301, path="/z"), "http://a.test:80/z?q"),
        (Redirect(status=301, path="/z?own"), "http://a.test:80/z?own"),
        (Redirect(status=301, prefix="/z"), "http://a.test:80/zx?q"),
        (Redirect(status=301, scheme="https"), "https://a.test/x?q"),
        (Redirect(status=301, port=99), "http://a.test:99/x?q"),
        (Redirect(status=301, host="b.test:1"), "http://b.test:1/x?q"),
    ],
)
def test_a_redirect_leads_to_a_url(action: Redirect, url: str) -> None:
    assert location(action, TextMatch("prefix", "/"), Request("a.test:80", "/x?q")) == url
