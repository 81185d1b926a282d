"""How the tree that chooses a connection's chain is printed for Envoy."""

from __future__ import annotations

from meshd.compile.envoy.choices import matcher
from meshd.compile.plan.choices import (
    ByAddress,
    ByHttp,
    ByMeshTls,
    ByNetwork,
    ByPort,
    ByServerName,
    ByTls,
    To,
)

A, B = To("a"), To("b")


def test_a_tree_without_a_question_is_one_too() -> None:
    assert matcher(A).on_no_match.action.name == "a"


def test_a_question_whose_answers_lead_to_one_chain_is_not_asked() -> None:
    assert matcher(ByPort({80: ByTls(A, A)})) == matcher(ByPort({80: A}))
    assert matcher(ByPort({80: ByTls(A, B)})) != matcher(ByPort({80: B}))


def test_the_way_of_tls_is_not_taken_for_plaintext() -> None:
    asked = matcher(ByTls(A, None)).matcher_tree
    assert asked.input.name == "transport"
    assert list(asked.exact_match_map.map) == ["tls"]


def test_names_are_asked_for_before_suffixes() -> None:
    tree = matcher(ByServerName({"x.test": A}, ((".long.test", A), (".test", B)), B))
    assert list(tree.matcher_tree.exact_match_map.map) == ["x.test"]
    wild = tree.on_no_match.matcher
    asked = [
        one.predicate.single_predicate.value_match.suffix for one in wild.matcher_list.matchers
    ]
    assert asked == [".long.test", ".test"]
    assert wild.on_no_match.action.name == "b"


def test_one_network_is_asked_for_after_single_addresses() -> None:
    tree = matcher(ByAddress({"198.19.0.1": A}, ByNetwork({"198.19.0.0/16": B})))
    assert list(tree.matcher_tree.exact_match_map.map) == ["198.19.0.1"]
    further = tree.on_no_match.matcher.matcher_tree
    assert further.custom_match.name == "envoy.matching.custom_matchers.ip_range_matcher"


def test_http_1_0_counts_only_where_that_is_asked_for() -> None:
    lines = matcher(ByHttp(A, B)).matcher_tree.exact_match_map.map
    with_old = matcher(ByHttp(A, B, http10=True)).matcher_tree.exact_match_map.map
    assert set(with_old) - set(lines) == {"'http/1.0'"}


def test_mutual_tls_of_the_mesh_is_known_by_what_is_offered() -> None:
    tree = matcher(ByMeshTls(A, B))
    (question,) = tree.matcher_list.matchers
    assert question.predicate.single_predicate.value_match.contains == "'istio"
    assert (question.on_match.action.name, tree.on_no_match.action.name) == ("a", "b")
