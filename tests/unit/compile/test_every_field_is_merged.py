"""Where objects or parts of one are put together, no field is lost.

Levels of a DestinationRule, rules for one host, and a route with that of its delegate.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.api.base import PortSelector
from meshd.api.destination_rule.types import (
    DestinationRule,
    DestinationRuleSpec,
    HTTPSettings,
    PortTrafficPolicy,
    Subset,
    TCPSettings,
    TrafficPolicy,
)
from meshd.api.virtual_service.delegation import merge_route
from meshd.api.virtual_service.types import HTTPMatchRequest, HTTPRoute, StringMatch
from meshd.compile.upstream.counted import is_counted
from meshd.compile.upstream.destination_rules import RuleSet, merge
from meshd.compile.upstream.traffic_policy import Policy, effective_policy

SENTINEL: Any = "what is written there"
"""Merging only passes it on, whatever the type is."""


def names(kind: type[msgspec.Struct], *others: str) -> list[str]:
    """Return the names of all fields but some, which exist."""
    found = [field.name for field in msgspec.structs.fields(kind)]
    assert set(others) <= set(found)
    return [name for name in found if name not in others]


def rules(policy: TrafficPolicy | None, of_subset: TrafficPolicy | None) -> RuleSet:
    subset = Subset(name="v1", traffic_policy=of_subset)
    return RuleSet(spec=DestinationRuleSpec(host="a", traffic_policy=policy, subsets=(subset,)))


@pytest.mark.parametrize("name", names(TrafficPolicy, "port_level_settings"))
def test_each_setting_of_a_rule_and_of_a_subset_is_merged(name: str) -> None:
    written = TrafficPolicy(**{name: SENTINEL})

    for policy, of_subset in ((written, None), (written, TrafficPolicy()), (None, written)):
        found = effective_policy(rules(policy, of_subset), 80, "v1")
        assert found == msgspec.structs.replace(Policy(), **{name: SENTINEL})


@pytest.mark.parametrize("name", names(PortTrafficPolicy, "port"))
def test_each_setting_of_a_port_replaces_those_of_its_level(name: str) -> None:
    at_port = PortTrafficPolicy(port=PortSelector(80), **{name: SENTINEL})
    below = dict.fromkeys(names(TrafficPolicy, "port_level_settings"), "of the level")
    written = TrafficPolicy(port_level_settings=(at_port,), **below)  # type: ignore[arg-type]
    kept = {other: "of the level" for other in below if other not in names(PortTrafficPolicy)}

    for policy, of_subset in ((written, None), (TrafficPolicy(), written)):
        found = effective_policy(rules(policy, of_subset), 80, "v1")
        assert found == msgspec.structs.replace(Policy(), **kept, **{name: SENTINEL})


@pytest.mark.parametrize(
    # What is not exported to a client, or selects other workloads, is not merged at all.
    "name",
    names(DestinationRuleSpec, "host", "export_to", "workload_selector"),
)
def test_each_field_of_the_rules_for_one_host_is_merged(name: str) -> None:
    value: Any = (Subset(name="v1"),) if name == "subsets" else SENTINEL
    plain = DestinationRule(spec=DestinationRuleSpec(host="a"))
    written = DestinationRule(spec=DestinationRuleSpec(host="a", **{name: value}))

    for both in ((plain, written), (written, plain)):
        found = merge(both)
        assert found == written.spec


NOT_COUNTED = {
    "connect_timeout": "of each connection",
    "tcp_keepalive": "of each connection",
    "max_connection_duration": "of each connection",
    "max_requests_per_connection": "of each connection",
    "max_concurrent_streams": "of each connection",
    "http2_keep_alive": "of each connection",
    "h2_upgrade_policy": "of each connection",
    "use_client_protocol": "of each connection",
    "idle_timeout": "of each connection",
}
"""Settings of which one client cannot use up another one's part, and why."""


@pytest.mark.parametrize(
    ("pool", "name"),
    [("tcp", name) for name in names(TCPSettings)]
    + [("http", name) for name in names(HTTPSettings)],
)
def test_each_limit_of_connections_is_counted_by_namespace(pool: str, name: str) -> None:
    written = {"trafficPolicy": {"connectionPool": {pool: {}}}, "host": "a"}
    spec = msgspec.convert(written, DestinationRuleSpec)
    settings = (TCPSettings if pool == "tcp" else HTTPSettings)(**{name: SENTINEL})
    assert spec.traffic_policy and spec.traffic_policy.connection_pool
    limited = msgspec.structs.replace(spec.traffic_policy.connection_pool, **{pool: settings})
    policy = msgspec.structs.replace(spec.traffic_policy, connection_pool=limited)

    counted = is_counted(msgspec.structs.replace(spec, traffic_policy=policy))

    assert counted == (name not in NOT_COUNTED)


OF_LEAVES = ("route", "redirect", "direct_response")
"""A route that leaves the rest to a delegate has none of these."""


@pytest.mark.parametrize("name", names(HTTPRoute, "match", "delegate", *OF_LEAVES))
def test_a_delegates_route_has_each_field_of_the_root_that_it_leaves_out(name: str) -> None:
    merged = merge_route(HTTPRoute(**{name: SENTINEL}), HTTPRoute())

    assert merged and getattr(merged, name) == SENTINEL


@pytest.mark.parametrize("name", names(HTTPRoute, "match", "delegate"))
def test_a_delegates_route_has_each_field_of_its_own(name: str) -> None:
    merged = merge_route(HTTPRoute(), HTTPRoute(**{name: SENTINEL}))

    assert merged and getattr(merged, name) == SENTINEL


def match(name: str) -> HTTPMatchRequest:
    """Return a match that asks for one thing."""
    (kind,) = (
        field.type for field in msgspec.structs.fields(HTTPMatchRequest) if field.name == name
    )
    pattern = StringMatch(exact="a")
    samples: tuple[Any, ...] = ("a", 1, True, pattern, {"a": pattern}, {"a": "b"}, ("a",))
    for value in samples:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            continue
        return HTTPMatchRequest(**{name: value})
    raise AssertionError(name)


@pytest.mark.parametrize(
    # Matches that do not agree about it have no effect together.
    "name",
    names(HTTPMatchRequest, "ignore_uri_case"),
)
def test_a_delegates_match_asks_for_all_that_the_root_asks_for(name: str) -> None:
    asked, nothing = match(name), HTTPMatchRequest()

    for wide, narrow in ((asked, nothing), (nothing, asked), (asked, asked)):
        merged = merge_route(HTTPRoute(match=(wide,)), HTTPRoute(match=(narrow,)))
        assert merged
        (found,) = merged.match
        # A name says where each part comes from.
        expected = asked if name != "name" or wide != narrow else HTTPMatchRequest(name="a-a")
        assert found == expected
