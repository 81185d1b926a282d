"""Which rules hold for whom."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api.base import decode_scalar
from meshd.api.networking import DestinationRule
from meshd.compile.upstream.destination_rules import NO_RULE, RuleIndex, RuleSet, merge
from meshd.compile.visibility.scope import Scope
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot

SERVICE = ServiceRecord(host="db.server.svc.cluster.local", namespace="server")


def rule(namespace: str, host: str, name: str = "rule", **spec: Any) -> DestinationRule:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace}, "spec": {"host": host, **spec}},
        DestinationRule,
        dec_hook=decode_scalar,
    )


def policy(simple: str) -> dict[str, Any]:
    return {"trafficPolicy": {"loadBalancer": {"simple": simple}}}


def seen(client: str | Scope, *rules: DestinationRule) -> RuleSet:
    scope = Scope(client) if isinstance(client, str) else client
    index = RuleIndex.of(Snapshot(services={SERVICE.host: SERVICE}, destination_rules=rules))
    return index.rules(SERVICE, scope)


def balancer(rules: RuleSet) -> str | None:
    balancer = rules.policy.load_balancer if rules.policy else None
    return balancer.simple if balancer else None


def test_rule_of_the_services_namespace_holds_for_all_and_is_shared() -> None:
    own = rule("server", "db", **policy("RANDOM"))

    for client in ("server", "client", "istio-system"):
        assert seen(client, own).variant == ""
        assert balancer(seen(client, own)) == "RANDOM"


def test_rule_of_the_clients_namespace_comes_first_and_makes_a_variant() -> None:
    rules = (
        rule("server", "db", **policy("RANDOM")),
        rule("client", "db.server", name="mine", **policy("ROUND_ROBIN")),
    )

    assert balancer(seen("client", *rules)) == "ROUND_ROBIN"
    assert seen("client", *rules).variant == "client/mine"
    assert balancer(seen("other", *rules)) == "RANDOM"
    assert seen("other", *rules).variant == ""


def test_rule_of_the_root_namespace_holds_where_there_is_no_other() -> None:
    root = rule("istio-system", "*.cluster.local", **policy("RANDOM"))

    assert balancer(seen("client", root)) == "RANDOM"
    assert seen("client", root).variant == ""
    assert balancer(seen("client", root, rule("server", "db"))) is None


def test_rule_that_is_not_exported_holds_in_its_own_namespace_only() -> None:
    private = rule("server", "db", exportTo=["."], **policy("RANDOM"))

    assert balancer(seen("server", private)) == "RANDOM"
    assert balancer(seen("client", private)) is None
    assert seen("client", private).variant == NO_RULE


def test_rule_for_the_exact_host_comes_before_one_for_a_wildcard() -> None:
    rules = (
        rule("server", "*.cluster.local", name="wide", **policy("RANDOM")),
        rule("server", "*.server.svc.cluster.local", name="narrow", **policy("ROUND_ROBIN")),
    )

    assert balancer(seen("client", *rules)) == "ROUND_ROBIN"
    assert balancer(seen("client", *rules, rule("server", "db", **policy("PASSTHROUGH")))) == (
        "PASSTHROUGH"
    )


def test_rule_that_selects_workloads_holds_for_those_of_its_own_namespace() -> None:
    selecting = rule(
        "client",
        "db.server",
        name="canary",
        workloadSelector={"matchLabels": {"app": "x"}},
        **policy("RANDOM"),
    )

    assert balancer(seen(Scope("client", (("app", "x"),)), selecting)) == "RANDOM"
    assert balancer(seen(Scope("client"), selecting)) is None
    assert balancer(seen(Scope("server", (("app", "x"),)), selecting)) is None


def test_no_rules_at_all_are_the_shared_view() -> None:
    assert seen("client") == RuleSet()


def test_rules_for_one_host_are_merged() -> None:
    merged = merge(
        (
            rule("server", "db", subsets=[{"name": "v1", "labels": {"version": "v1"}}]),
            rule(
                "server",
                "db",
                subsets=[{"name": "v1", "labels": {"version": "other"}}, {"name": "v2"}],
                **policy("RANDOM"),
            ),
        )
    )

    assert merged is not None
    assert [(subset.name, subset.labels) for subset in merged.subsets] == [
        ("v1", {"version": "v1"}),
        ("v2", {}),
    ]
    assert balancer(RuleSet(spec=merged)) == "RANDOM"
