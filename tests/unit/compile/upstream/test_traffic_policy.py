"""How settings of a rule, a port and a subset come together."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api.base import decode_scalar
from meshd.api.traffic import DestinationRuleSpec
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.traffic_policy import (
    UNLIMITED,
    Policy,
    circuit_breakers,
    effective_policy,
)

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


def test_nothing_is_limited_unless_asked() -> None:
    (limits,) = circuit_breakers(Policy()).thresholds

    assert limits.max_connections.value == limits.max_requests.value == UNLIMITED
    assert limits.track_remaining
