"""How settings of a rule, a port and a subset come together."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api.base import ObjectMeta, decode_scalar
from meshd.api.networking import DestinationRule, DestinationRuleSpec
from meshd.compile.upstream.destination_rules import RuleIndex, RuleSet
from meshd.compile.upstream.traffic_policy import (
    Policy,
    effective_policy,
    policy_origins,
)
from meshd.compile.visibility.scope import Scope
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot

SHOP = Scope("shop")
RANDOM = {"loadBalancer": {"simple": "RANDOM"}}
ROUND_ROBIN = {"loadBalancer": {"simple": "ROUND_ROBIN"}}
POOL = {"connectionPool": {"tcp": {"maxConnections": 3}}}


def policy(port: int, subset: str = "", **spec: Any) -> Policy:
    rules = msgspec.convert({"host": "a", **spec}, DestinationRuleSpec, dec_hook=decode_scalar)
    return effective_policy(RuleSet(spec=rules), port, subset)


def simple(found: Policy) -> str | None:
    return found.load_balancer.simple if found.load_balancer else None


def test_without_rules_all_is_at_its_default() -> None:
    assert effective_policy(RuleSet(), 80, "v1") == Policy()


def test_settings_of_a_port_replace_all_others() -> None:
    spec: dict[str, Any] = {
        "trafficPolicy": {
            **RANDOM,
            **POOL,
            "portLevelSettings": [{"port": {"number": 81}, **ROUND_ROBIN}],
        }
    }

    assert simple(policy(80, **spec)) == "RANDOM"
    assert simple(policy(81, **spec)) == "ROUND_ROBIN"
    assert policy(80, **spec).tcp.max_connections == 3
    assert policy(81, **spec).tcp.max_connections is None


def test_subset_takes_what_it_does_not_say_from_the_rule() -> None:
    spec: dict[str, Any] = {
        "trafficPolicy": {**RANDOM, **POOL},
        "subsets": [{"name": "v1", "trafficPolicy": ROUND_ROBIN}, {"name": "v2"}],
    }

    assert simple(policy(80, "v1", **spec)) == "ROUND_ROBIN"
    assert policy(80, "v1", **spec).tcp.max_connections == 3
    assert simple(policy(80, "v2", **spec)) == "RANDOM"
    assert simple(policy(80, "unknown", **spec)) == "RANDOM"


def test_settings_of_a_port_in_a_subset_replace_the_rules_too() -> None:
    level = {"portLevelSettings": [{"port": {"number": 80}, **ROUND_ROBIN}]}
    spec: dict[str, Any] = {
        "trafficPolicy": {**RANDOM, **POOL},
        "subsets": [{"name": "v1", "trafficPolicy": level}],
    }

    assert simple(policy(80, "v1", **spec)) == "ROUND_ROBIN"
    assert policy(80, "v1", **spec).tcp.max_connections is None
    assert policy(81, "v1", **spec).tcp.max_connections == 3


def test_each_part_of_a_policy_has_the_field_that_sets_it() -> None:
    spec: dict[str, Any] = {
        "trafficPolicy": {
            **RANDOM,
            **POOL,
            "proxyProtocol": {"version": "V1"},
            "portLevelSettings": [
                {"port": {"number": 80}, **ROUND_ROBIN},
                {"port": {"number": 81}, **ROUND_ROBIN},
            ],
        },
        "subsets": [{"name": "v1", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}, {"name": "v2"}],
    }
    converted = msgspec.convert({"host": "a", **spec}, DestinationRuleSpec, dec_hook=decode_scalar)
    rule = DestinationRule(metadata=ObjectMeta(name="a", namespace="shop"), spec=converted)
    index = RuleIndex.of(Snapshot(destination_rules=(rule,)))
    rules = index.rules(ServiceRecord(host="a.shop.svc.cluster.local", namespace="shop"), SHOP)

    def fields(port: int, subset: str = "") -> dict[str, str]:
        found = policy_origins(rules, port, subset)
        assert {origin.key for _, origin in found} == {rule.key}
        return {part: origin.field for part, origin in found}

    whole = {"proxyProtocol": "spec.trafficPolicy.proxyProtocol"}
    level = {
        "connectionPool": "spec.trafficPolicy.connectionPool",
        "loadBalancer": "spec.trafficPolicy.loadBalancer",
    }
    at_port = {"loadBalancer": "spec.trafficPolicy.portLevelSettings[1].loadBalancer"}
    assert fields(82) == whole | level
    assert fields(81) == whole | at_port
    assert fields(81, "v1") == whole | at_port | {"tls": "spec.subsets[0].trafficPolicy.tls"}
    assert fields(82, "v2") == whole | level
    assert policy_origins(RuleSet(), 80) == ()
