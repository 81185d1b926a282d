"""A policy is known again by its specification, whatever way that has gone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.api.write import to_json
from meshd.base.json_values import Json, JsonObject
from meshd.config.policy_digest import DIGEST, NOT_IN_FORCE, digest_of, is_superseded
from meshd.fleet.server import mcp


def test_a_policy_that_is_not_on_trial_any_more_is_another_one() -> None:
    spec: JsonObject = {"action": "DENY", "rules": [{}]}
    held: JsonObject = {"metadata": {"annotations": {"istio.io/dry-run": "true"}}, "spec": spec}
    others: tuple[JsonObject, ...] = ({}, {"istio.io/dry-run": "false"})
    for noted in others:
        told: JsonObject = {"metadata": {"annotations": noted}, "spec": spec}
        assert digest_of(told) == digest_of({"spec": spec})
        assert is_superseded(held, {"spec": {NOT_IN_FORCE: True, DIGEST: digest_of(told)}})
    assert not is_superseded(held, {"spec": {NOT_IN_FORCE: True, DIGEST: digest_of(held)}})


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
specs: st.SearchStrategy[JsonObject] = st.dictionaries(texts, values, max_size=4)
modes = st.sampled_from(("UNSET", "DISABLE", "PERMISSIVE", "STRICT")).map(MutualTLS)
labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)
policies = st.builds(
    PeerAuthentication,
    metadata=st.builds(ObjectMeta, name=st.just("a"), namespace=st.just("shop"), labels=labels),
    spec=st.builds(
        PeerAuthenticationSpec,
        selector=st.none() | st.builds(WorkloadSelector, match_labels=labels),
        mtls=st.none() | modes,
        port_level_mtls=st.none() | st.dictionaries(st.integers(1, 3), modes, max_size=2),
    ),
)


def policy(spec: Json) -> JsonObject:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": spec,
    }


def received(value: JsonObject) -> JsonObject:
    """Return an object as an agent reads it."""
    told = mcp.encode(value)
    return mcp.decode(told.type_url, told.body)


@given(specs)
@example({"a": 2**63, "b": 2**53 + 1, "c": -0.0, "d": 1e300, "e": 10**22, "f": [True, 1, 1.0]})
def test_a_digest_is_the_same_of_what_was_a_message(spec: JsonObject) -> None:
    assert digest_of(received(policy(spec))) == digest_of(policy(spec))


@given(specs)
def test_a_digest_does_not_depend_on_the_order_of_fields(spec: JsonObject) -> None:
    turned = dict(reversed(spec.items()))
    assert digest_of(policy(turned)) == digest_of(policy(spec))


@given(policies, policies)
def test_policies_have_the_same_digest_if_they_ask_for_the_same_whatever_their_metadata(
    one: PeerAuthentication, other: PeerAuthentication
) -> None:
    same = digest_of(to_json(one)) == digest_of(received(to_json(other)))
    assert same is (one.spec == other.spec)
    assert is_superseded(to_json(one), received(to_json(other))) is not same


@pytest.mark.parametrize(("one", "other"), [(True, 1), ("1", 1), (None, False), ([], {})])
def test_values_of_different_types_have_different_digests(one: Json, other: Json) -> None:
    assert digest_of(policy({"a": one})) != digest_of(policy({"a": other}))


def test_what_stands_for_a_policy_has_the_digest_that_it_carries() -> None:
    stands: JsonObject = {NOT_IN_FORCE: True, DIGEST: "d", "mtls": {"mode": "STRICT"}}
    assert digest_of(policy(stands)) == "d"
    assert is_superseded(policy({}), policy(stands))


@pytest.mark.parametrize("digest", [{}, {DIGEST: 7}, {DIGEST: ""}])
def test_a_version_is_kept_for_which_an_older_server_tells_no_digest(digest: JsonObject) -> None:
    assert not is_superseded(policy({}), policy({NOT_IN_FORCE: True, **digest}))


def test_numbers_that_no_double_holds_and_any_depth_end_nothing() -> None:
    deep: Json = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert not digest_of(policy({"a": deep}))
    assert digest_of(policy({"a": 10**400})) != digest_of(policy({"a": -(10**400)}))
