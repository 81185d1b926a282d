"""An object with a text that proxies refuse is closed, and so costs no other object."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd.api.base import Object
from meshd.api.read import read_objects
from meshd.compile.control_characters import ControlCharacters
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.registry.registry import build_snapshot

TO_A: dict[str, Any] = {"route": [{"destination": {"host": "a"}}]}
SENT: dict[str, dict[str, Any]] = {
    "redirect.uri": {"redirect": {"uri": "/a\n"}},
    "redirect.authority": {"redirect": {"authority": "a\n"}},
    "redirect.prefixRewrite": {"redirect": {"prefixRewrite": "/a\n"}},
    "rewrite.uri": TO_A | {"rewrite": {"uri": "/a\n"}},
    "rewrite.authority": TO_A | {"rewrite": {"authority": "a\n"}},
    "rewrite.uriRegexRewrite.rewrite": TO_A
    | {"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": "a\n"}}},
}


def made(kind: str, name: str, spec: dict[str, Any]) -> Object:
    value = {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }
    (read,) = read_objects(json.dumps(value), "a.json")
    return read.object


def snapshot(*objects: Object) -> Snapshot:
    return build_snapshot(objects, (), MeshOptions(), {})


GOOD = made("VirtualService", "good", {"hosts": ["a.test"], "http": [TO_A]})


@pytest.mark.parametrize(("field", "route"), SENT.items(), ids=SENT)
def test_routes_that_proxies_refuse_are_closed_and_named(field: str, route: dict[str, Any]) -> None:
    bad = made("VirtualService", "bad", {"hosts": ["b.test"], "http": [route]})
    closing = ControlCharacters()
    closed = closing.close(snapshot(GOOD, bad))
    stands = {one.metadata.name: one for one in closed.virtual_services}
    assert stands["good"] is GOOD
    assert isinstance(stands["bad"], ClosedRoutes)
    assert stands["bad"].spec.hosts == ("b.test",)
    (problem,) = closing.problems
    assert problem.startswith(f"VirtualService shop/bad is closed: spec.http[0].{field}: ")
    before = snapshot(GOOD)
    assert closing.close(before) is before
    assert closing.problems == ()


def test_a_rule_that_hashes_by_a_header_with_a_control_character_is_closed() -> None:
    hashing = {"loadBalancer": {"consistentHash": {"httpHeaderName": "a\n"}}}
    bad = made("DestinationRule", "bad", {"host": "a", "trafficPolicy": hashing})
    (closed,) = ControlCharacters().close(snapshot(bad)).destination_rules
    assert isinstance(closed, ClosedRule)


def test_texts_that_are_in_no_request_stay_in_force() -> None:
    named = made("VirtualService", "a", {"hosts": ["b.test"], "http": [TO_A | {"name": "a\n"}]})
    before = snapshot(GOOD, named)
    closing = ControlCharacters()
    assert closing.close(before) is before
    assert closing.problems == ()
