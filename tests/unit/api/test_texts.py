"""Control characters in objects, which proxies refuse together with all that is beside them."""

from __future__ import annotations

import pytest

from meshd.api.dispatch import check_accepted, check_fields
from meshd.api.read import read_sources

TO_A = "route: [{destination: {host: a}}]}"


def complaints(kind: str, spec: str) -> list[str]:
    text = f"""
apiVersion: networking.istio.io/v1
kind: {kind}
metadata: {{name: a, namespace: shop}}
spec: {spec}
"""
    reading = read_sources([("a.yaml", text)])
    assert not reading.errors
    return [one.field for one in check_fields(reading.objects) if one.severity == "error"]


@pytest.mark.parametrize("character", [r"\0", r"\n", r"\r", r"\x7f"])
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{redirect: {uri: %s}}", "redirect.uri"),
        ("{redirect: {authority: %s}}", "redirect.authority"),
        ("{redirect: {prefixRewrite: %s}}", "redirect.prefixRewrite"),
        ("{rewrite: {uri: %s}, " + TO_A, "rewrite.uri"),
        ("{rewrite: {authority: %s}, " + TO_A, "rewrite.authority"),
        (
            "{rewrite: {uriRegexRewrite: {match: a, rewrite: %s}}, " + TO_A,
            "rewrite.uriRegexRewrite.rewrite",
        ),
    ],
)
def test_a_route_with_a_control_character_is_refused(character: str, spec: str, field: str) -> None:
    route = f"{{hosts: [a], http: [{spec}]}}"

    assert complaints("VirtualService", route % f'"/a{character}b"') == [f"spec.http[0].{field}"]
    assert complaints("VirtualService", route % '"/ab"') == []


@pytest.mark.parametrize(
    ("hashing", "field"),
    [
        ("{httpHeaderName: %s}", "httpHeaderName"),
        ("{httpQueryParameterName: %s}", "httpQueryParameterName"),
        ("{httpCookie: {name: a, ttl: 1s, path: %s}}", "httpCookie.path"),
        (
            "{httpCookie: {name: a, ttl: 1s, attributes: [{name: a, value: %s}]}}",
            "httpCookie.attributes[0].value",
        ),
    ],
)
def test_hashing_by_a_text_with_a_control_character_is_refused(hashing: str, field: str) -> None:
    spec = f"{{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {hashing}}}}}}}"
    place = f"spec.trafficPolicy.loadBalancer.consistentHash.{field}"

    assert complaints("DestinationRule", spec % r'"a\0b"') == [place]


def test_each_text_is_complained_of_once() -> None:
    headers = 'headers: {request: {set: {x-a: "a\\nb"}}}'
    assert len(complaints("VirtualService", f"{{hosts: [a], http: [{{{headers}, {TO_A}]}}")) == 1


@pytest.mark.parametrize(
    "route",
    [
        r'{directResponse: {status: 200, body: {string: "two\nlines\n"}}}',
        rf'{{match: [{{uri: {{exact: "/a\nb"}}}}], {TO_A}',
    ],
)
def test_an_answer_may_have_lines_and_what_is_compared_may_be_any_text(route: str) -> None:
    assert complaints("VirtualService", f"{{hosts: [a], http: [{route}]}}") == []


def test_an_object_that_was_accepted_before_is_not_refused_for_it() -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec: {hosts: [a], http: [{redirect: {uri: "/a\\nb"}}]}
"""
    (read,) = read_sources([("a.yaml", text)]).objects
    assert check_fields([read])
    assert check_accepted(read) == ()
