"""Which route explain chooses for requests that are written in unusual ways."""

from __future__ import annotations

from typing import Literal

import pytest

from meshd.compile.explain.route_choice import choose_host, choose_route
from meshd.compile.plan.routes import DirectResponse, Route, RouteTable, VirtualHost
from meshd.matching.conditions import HeaderMatch, QueryMatch, RouteMatch, TextMatch
from meshd.matching.request import Request, claimed


def host(match: RouteMatch) -> VirtualHost:
    route = Route(name="wanted", match=match, action=DirectResponse(200))
    return VirtualHost(name="a", domains=("a.test",), routes=(route,))


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/%61%2Fb", "/a%2Fb"),
        ("/%2e%2E/a", "/a"),
        ("//a", "//a"),
    ],
)
def test_a_path_is_normalized_before_it_is_compared(path: str, read: str) -> None:
    assert choose_route(host(RouteMatch(TextMatch("exact", read))), Request("a.test", path))


@pytest.mark.parametrize(
    ("query", "fits"), [("x=1", True), ("x=%31", False), ("x=2&x=1", False), ("y=&x=1", True)]
)
def test_a_parameter_is_compared_as_it_is_written_first(query: str, fits: bool) -> None:
    match = RouteMatch(query=(QueryMatch("x", TextMatch("exact", "1")),))
    taken = choose_route(host(match), Request("a.test", f"/?{query}"))
    assert (taken is not None) == fits


@pytest.mark.parametrize("asked", ["a.test", "A.Test", "a.test.", "a.test:80", "a.test.:80"])
def test_a_host_is_found_without_its_port_and_last_dot(asked: str) -> None:
    assert choose_host(RouteTable("80", (host(RouteMatch()),)), Request(asked))


@pytest.mark.parametrize(
    ("name", "values", "kind", "text", "fits"),
    [
        ("x-a", ("1", "2"), "exact", "1", True),
        ("x-a", ("1", "2"), "exact", "2", True),
        ("x-a", ("1", "2"), "exact", "1,2", False),
        ("x-a", ("1,2",), "exact", "1,2", True),
        ("x-a", ("1", "2"), "regex", "1.2", False),
        ("x-a", ("", "2"), "exact", "", True),
        ("x-a", (), "exact", "", False),
        ("User-Agent", ("1", "2"), "exact", "1", False),
        ("user-agent", ("1", "2"), "exact", "1,2", True),
        ("user-agent", ("1", "2"), "prefix", "2", False),
        ("user-agent", ("", "2"), "exact", "2", True),
    ],
)
def test_the_lines_of_a_header_are_compared_one_by_one_unless_the_proxy_joins_them(
    name: str,
    values: tuple[str, ...],
    kind: Literal["exact", "prefix", "regex"],
    text: str,
    fits: bool,
) -> None:
    asked = Request("a.test", headers=tuple((name.upper(), value) for value in values))
    wanted = HeaderMatch(name, TextMatch(kind, text))
    assert (choose_route(host(RouteMatch(headers=(wanted,))), asked) is not None) == fits


@pytest.mark.parametrize(
    ("values", "text", "fits"),
    [(("1", "2"), "2", False), (("1", "2"), "3", True), ((), "3", True), ((), "", False)],
)
def test_an_unwanted_header_has_the_value_in_no_line(
    values: tuple[str, ...], text: str, fits: bool
) -> None:
    asked = Request("a.test", headers=tuple(("x-a", value) for value in values))
    unwanted = HeaderMatch("x-a", TextMatch("exact", text), unwanted=True)
    assert (choose_route(host(RouteMatch(headers=(unwanted,))), asked) is not None) == fits


@pytest.mark.parametrize(
    ("claims", "scheme"),
    [
        ((), "http"),
        (("HTTPS",), "https"),
        (("https", "http"), "http"),
        (("ftp",), "http"),
        (("",), ""),
    ],
)
def test_the_scheme_of_a_request_inside_the_mesh_is_what_it_claims(
    claims: tuple[str, ...], scheme: str
) -> None:
    headers = tuple(("X-Forwarded-Proto", claim) for claim in claims)
    asked = claimed(Request("a.test", headers=headers))
    assert asked.scheme == scheme
    assert bool(choose_route(host(RouteMatch()), asked)) == bool(scheme)
