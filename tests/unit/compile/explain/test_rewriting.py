"""What explain says that upstreams receive, and where redirects lead."""

from __future__ import annotations

import pytest

from meshd.compile.explain.rewriting import forwarded, location
from meshd.compile.plan.routes import Forward, Redirect, RegexRewrite, Target
from meshd.matching.conditions import EVERY_PATH, TextMatch
from meshd.matching.request import Request


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
    sent = forwarded(action, action.targets[0], match, Request("a.test", "/a/b?c"))
    assert (sent.host, sent.path) == ("a.test", path)


@pytest.mark.parametrize(
    ("pattern", "substitution", "path"),
    [
        ("a", "z", "/zbz?a"),
        ("^/(.)(x)?.*$", r"/\1\2\\", "/a\\?a"),
        ("b*", "-", "-/-a-a-?a"),
    ],
)
def test_a_pattern_is_replaced_wherever_it_matches(
    pattern: str, substitution: str, path: str
) -> None:
    rewrite = RegexRewrite(pattern, substitution)
    action = Forward(targets=(Target("up"),), regex_rewrite=rewrite)
    sent = forwarded(action, action.targets[0], EVERY_PATH, Request("a.test", "/aba?a"))
    assert sent.path == path


def test_the_host_of_a_route_wins_over_that_of_its_destination() -> None:
    target = Target("up", host="target.test")
    asked = Request("a.test")
    for host, received in (("route.test", "route.test"), ("", "target.test")):
        action = Forward(targets=(target,), host=host)
        assert forwarded(action, target, EVERY_PATH, asked).host == received


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
