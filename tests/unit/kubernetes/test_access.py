"""What a cluster is to allow."""

from __future__ import annotations

from typing import Any

from meshd.kubernetes.access import objects, rules
from meshd.kubernetes.followed_kinds import KINDS, path_of


def test_all_that_is_followed_may_be_read_and_nothing_else() -> None:
    given: Any = rules()
    allowed = {(rule["apiGroups"][0], one) for rule in given for one in rule["resources"]}
    assert allowed == {
        ("", "pods"),
        ("discovery.k8s.io", "endpointslices"),
        *((kind.GROUP, path_of(kind).rpartition("/")[2]) for kind in KINDS.values()),
    }
    assert all(rule["verbs"] == ["get", "list", "watch"] for rule in given)
    assert not any("secrets" in rule["resources"] for rule in given)


def test_the_account_that_is_bound_is_the_one_that_is_made() -> None:
    by_kind: Any = {one["kind"]: one for one in objects()}
    (subject,) = by_kind["ClusterRoleBinding"]["subjects"]
    meta = by_kind["ServiceAccount"]["metadata"]
    assert (subject["name"], subject["namespace"]) == (meta["name"], meta["namespace"])
    assert (
        by_kind["ClusterRoleBinding"]["roleRef"]["name"]
        == by_kind["ClusterRole"]["metadata"]["name"]
    )
