"""No client uses up what a rule allows to the clients of another namespace."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.compile.upstream.counted import ANNOTATION
from meshd.compile.visibility.scope import Scope, scopes
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload
from tests.unit.compile.upstream.test_destination_rules import rule, seen

COUNTED: list[dict[str, Any]] = [
    {"connectionPool": {"tcp": {"maxConnections": 1}}},
    {"connectionPool": {"http": {"http1MaxPendingRequests": 1}}},
    {"connectionPool": {"http": {"http2MaxRequests": 1}}},
    {"connectionPool": {"http": {"maxRetries": 1}}},
    {"outlierDetection": {"consecutive5xxErrors": 1}},
    {"retryBudget": {"percent": 20}},
]
PORTS = [
    {"portLevelSettings": [{"port": {"number": 80}, **policy}]}
    for policy in COUNTED
    if "retryBudget" not in policy
]


@pytest.mark.parametrize("policy", COUNTED + PORTS)
@pytest.mark.parametrize("of_subset", [False, True])
def test_clients_of_each_namespace_count_for_themselves(
    policy: dict[str, Any], of_subset: bool
) -> None:
    spec: dict[str, Any] = {"trafficPolicy": policy}
    if of_subset:
        spec = {"subsets": [{"name": "v1", "labels": {"version": "v1"}, **spec}]}
    own = rule("server", "db", **spec)
    variants = [seen(client, own).variant for client in ("server", "a", "b")]
    assert variants == ["", "+a", "+b"]
    assert seen(Scope("a", client="a.x"), own).variant not in variants
    assert seen(Scope("server", client="server.x"), own).variant not in variants


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"loadBalancer": {"simple": "RANDOM"}},
        {"connectionPool": {"tcp": {"connectTimeout": "3s"}}},
        {"connectionPool": {"http": {"maxRequestsPerConnection": 3}}},
    ],
)
def test_clients_share_a_cluster_of_which_nothing_is_counted(policy: dict[str, Any]) -> None:
    own = rule("server", "db", trafficPolicy=policy)
    assert seen("a", own).variant == seen(Scope("b", client="b.x"), own).variant == ""


def test_a_workload_that_asks_for_it_counts_for_itself() -> None:
    plain = Workload(uid="a.x", name="x", namespace="a", netns="/n/x")
    asking = msgspec.structs.replace(plain, uid="a.y", annotations={ANNOTATION: "true"})
    found = scopes(Snapshot(workloads={one.uid: one for one in (plain, asking)}))
    assert found == {"a.x": Scope("a"), "a.y": Scope("a", client="a.y")}
    assert len({scope.name for scope in found.values()}) == 2
    assert ":" not in found["a.y"].counted_as
