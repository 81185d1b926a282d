"""Routes that one VirtualService leaves to another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.api.base import decode_scalar
from meshd.api.networking import HTTPRoute, VirtualService
from meshd.compile.http.delegation import delegated
from meshd.model.snapshot import Snapshot


def virtual_service(name: str, namespace: str, **spec: Any) -> VirtualService:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace}, "spec": spec},
        VirtualService,
        dec_hook=decode_scalar,
    )


def merged(root: dict[str, Any], delegate: dict[str, Any], **spec: Any) -> tuple[HTTPRoute, ...]:
    """The routes of a root in namespace ``edge`` with one that delegates to ``shop/books``."""
    to = {"delegate": {"name": "books", "namespace": "shop"}}
    snapshot = Snapshot(
        virtual_services=(
            virtual_service("root", "edge", hosts=["books.test"], http=[{**to, **root}]),
            virtual_service("books", "shop", http=[delegate], **spec),
        )
    )
    (found,) = delegated(snapshot).virtual_services
    return found.spec.http


def uri(**pattern: str) -> dict[str, Any]:
    return {"match": [{"uri": pattern}]}


TO_BOOKS = {"route": [{"destination": {"host": "books"}}]}


def test_short_hosts_of_a_delegate_are_of_its_own_namespace() -> None:
    (route,) = merged(uri(prefix="/"), {**TO_BOOKS, "mirror": {"host": "shadow"}})

    assert route.route[0].destination.host == "books.shop.svc.cluster.local"
    assert route.mirror and route.mirror.host == "shadow.shop.svc.cluster.local"
    assert route.delegate and (route.delegate.namespace, route.delegate.name) == ("shop", "books")


@pytest.mark.parametrize(
    ("root", "delegate"),
    [
        ({}, {"uri": {"exact": "/a"}}),
        ({"uri": {"prefix": "/a"}}, {}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/a"}}),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"y": {"exact": "2"}}}),
        ({"port": 80}, {"method": {"exact": "GET"}}),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"app": "a", "version": "v1"}}),
        ({"gateways": ["shop/g", "shop/h"]}, {"gateways": ["g"]}),
    ],
)
def test_a_delegates_match_within_the_roots_has_the_conditions_of_both(
    root: dict[str, Any], delegate: dict[str, Any]
) -> None:
    (route,) = merged({"match": [root]}, {"match": [delegate], **TO_BOOKS})
    written = msgspec.to_builtins(route.match[0])
    place = written.pop("place")

    both = {**root, **delegate}
    if "headers" in both:
        both["headers"] = {**root["headers"], **delegate["headers"]}
    if "gateways" in both:
        both["gateways"] = ("shop/g",)
    assert written == both
    assert (place["key"]["name"], place["field"]) == ("books", "spec.http[0].match[0]")


@pytest.mark.parametrize(
    ("root", "delegate"),
    [
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/b"}}),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/b"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"regex": "/a.*"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a"}, "ignoreUriCase": True}),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"x": {"exact": "2"}}}),
        ({"headers": {"x": {"exact": "1"}}}, {"withoutHeaders": {"x": {"exact": "2"}}}),
        ({"queryParams": {"x": {"exact": "1"}}}, {"queryParams": {"x": {"prefix": "1"}}}),
        ({"port": 80}, {"port": 81}),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "b"}),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"app": "b"}}),
        ({"gateways": ["shop/g"]}, {"gateways": ["h"]}),
    ],
)
def test_a_delegates_match_that_is_no_subset_has_no_effect(
    root: dict[str, Any], delegate: dict[str, Any]
) -> None:
    assert merged({"match": [root]}, {"match": [delegate], **TO_BOOKS}) == ()


def test_each_match_is_joined_with_each_of_the_roots_that_it_fits() -> None:
    root = {"name": "r", "match": [{"name": "a", "uri": {"prefix": "/a"}}, {"port": 80}]}
    leaf = {"name": "d", "match": [{"name": "x", "uri": {"prefix": "/a/x"}}], **TO_BOOKS}
    (route,) = merged(root, leaf)

    assert route.name == "r-d"
    assert [match.name for match in route.match] == ["a-x", "x"]
    assert [match.port for match in route.match] == [None, 80]


def test_what_a_delegates_route_leaves_out_is_the_roots() -> None:
    (route,) = merged(
        {"timeout": "2s", "retries": {"attempts": 3}, "rewrite": {"uri": "/root"}},
        {"retries": {"attempts": 1}, **TO_BOOKS},
    )

    assert route.timeout == 2
    assert route.retries and route.retries.attempts == 1
    assert route.rewrite and route.rewrite.uri == "/root"


@pytest.mark.parametrize(
    ("export_to", "is_seen"), [([], True), (["*"], True), (["edge"], True), (["."], False)]
)
def test_only_a_delegate_that_is_exported_to_the_root_counts(
    export_to: list[str], is_seen: bool
) -> None:
    assert bool(merged({}, TO_BOOKS, exportTo=export_to)) is is_seen


def test_a_missing_delegate_leaves_the_other_routes() -> None:
    root = virtual_service(
        "root", "edge", hosts=["a"], http=[{"delegate": {"name": "none"}}, TO_BOOKS]
    )
    (found,) = delegated(Snapshot(virtual_services=(root,))).virtual_services

    assert len(found.spec.http) == 1


def test_a_delegates_own_delegate_is_not_followed() -> None:
    assert merged({}, {"delegate": {"name": "other"}}) == ()
