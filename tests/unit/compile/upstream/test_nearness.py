"""Which endpoints come first for a client, and for whom it matters where it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import decode_scalar
from meshd.api.destination_rule.types import (
    LoadBalancerSettings,
    LocalityLbSetting,
    OutlierDetection,
)
from meshd.api.locality import locality_of, matches, parts, shared
from meshd.api.networking import DestinationRule
from meshd.api.protocol import Protocol
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.nearness import Client, by_nearness, in_effect
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope, scopes
from meshd.compile.visibility.view import View
from meshd.model.service import Endpoint, Port, Preference, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload

HOST = "a.default.svc.cluster.local"
HERE = "us/a/1"
PLACES = ["us/a/1", "us/a/2", "us/b/1", "eu/c/1", "asia/d/1", ""]


def endpoint(locality: str, **more: Any) -> Endpoint:
    more = {"labels": {}, **more}
    return Endpoint(address="198.18.0.1", port=80, service_port=80, locality=locality, **more)


def setting(**written: Any) -> LocalityLbSetting:
    return msgspec.convert(written, LocalityLbSetting)


def priorities(places: list[Endpoint], **written: Any) -> list[tuple[str, int]]:
    groups = by_nearness(places, setting(**written), Client(HERE))
    return [(group.locality, group.priority) for group in groups for _ in group.endpoints]


def test_endpoints_are_nearer_the_more_of_their_locality_is_the_clients() -> None:
    assert priorities([endpoint(place) for place in PLACES]) == [
        ("us/a/1", 0),
        ("us/a/2", 1),
        ("us/b/1", 2),
        ("", 3),
        ("asia/d/1", 3),
        ("eu/c/1", 3),
    ]


def test_zone_aware_balancing_is_read_as_a_preference_for_what_is_near() -> None:
    balancer = msgspec.convert(
        {"zoneAwareLbSetting": {"enabled": True, "failoverPriority": ["rack"]}},
        LoadBalancerSettings,
    )
    assert balancer.nearness == setting(enabled=True, failoverPriority=["rack"])
    both = msgspec.structs.replace(balancer, locality_lb_setting=setting(enabled=False))
    assert both.nearness == setting(enabled=False)


def test_the_region_that_is_to_stand_in_comes_before_the_others() -> None:
    found = dict(
        priorities(
            [endpoint(place) for place in PLACES],
            failover=[{"from": "us", "to": "eu"}, {"from": "eu", "to": "asia"}],
        )
    )

    assert (found["us/b/1"], found["eu/c/1"], found["asia/d/1"]) == (2, 3, 4)


def test_where_none_is_near_the_nearest_there_are_come_first() -> None:
    assert priorities([endpoint("eu/c/1"), endpoint("us/b/1")]) == [("us/b/1", 0), ("eu/c/1", 1)]


def test_labels_are_compared_one_after_the_other_until_one_differs() -> None:
    client = Client(HERE, "n1", (("rack", "7"), ("topology.istio.io/network", "net")))
    keys = ("topology.istio.io/network", "topology.kubernetes.io/zone", "rack", "version=v2")
    net = {"topology.istio.io/network": "net"}
    places = [
        endpoint("us/a/1", labels={"rack": "7"}),
        endpoint("us/a/1", labels={**net, "rack": "8", "version": "v2"}),
        endpoint("us/a/1", labels={**net, "rack": "7"}),
        endpoint("us/a/1", labels={**net, "rack": "7", "version": "v2"}),
        endpoint("us/b/1", labels={**net, "rack": "7", "version": "v2"}),
    ]
    groups = by_nearness(places, setting(failoverPriority=keys), client)

    assert [[places.index(one) for one in group.endpoints] for group in groups] == [
        [3],
        [2],
        [1],
        [4],
        [0],
    ]
    assert [group.priority for group in groups] == [0, 1, 2, 3, 4]


def test_the_clients_own_node_is_nearest_where_that_is_preferred() -> None:
    service = ServiceRecord(host=HOST, namespace="default", prefers=Preference.SAME_NODE)
    client = Client(HERE, "n1")
    preferred = in_effect(None, None, service, client)
    assert preferred
    groups = by_nearness([endpoint(HERE, node="n2"), endpoint(HERE, node="n1")], preferred, client)

    assert [group.endpoints[0].node for group in groups] == ["n1", "n2"]


def test_shares_are_divided_over_the_localities_of_a_pattern_and_the_rest_gets_nothing() -> None:
    asked = [{"from": "us/*", "to": {"us/*": 80, "eu/c": 20}}]
    places = [endpoint("us/a/1"), endpoint("us/b/1", weight=3), endpoint("eu/c/1")]
    groups = by_nearness([*places, endpoint("asia/d/1")], setting(distribute=asked), Client(HERE))
    weights = {group.locality: group.weight for group in groups}

    assert weights == {"us/a/1": 20_000, "us/b/1": 60_000, "eu/c/1": 20_000}
    assert {group.priority for group in groups} == {0}


@given(
    st.lists(st.sampled_from(PLACES).map(endpoint), max_size=8),
    st.sampled_from(
        [
            {},
            {"failover": [{"from": "us", "to": "eu"}]},
            {"failoverPriority": ["topology.kubernetes.io/region", "rack"]},
            {"failoverPriority": ["rack=1"], "failover": [{"from": "us", "to": "eu"}]},
        ],
    ),
    st.sampled_from(PLACES),
)
def test_every_endpoint_is_in_one_group_and_priorities_have_no_gaps(
    places: list[Endpoint], written: dict[str, Any], here: str
) -> None:
    groups = by_nearness(places, setting(**written), Client(here))

    assert sorted(str(one) for group in groups for one in group.endpoints) == sorted(
        map(str, places)
    )
    used = {group.priority for group in groups}
    assert used == set(range(len(used)))


OUTLIERS = OutlierDetection(consecutive_5xx_errors=1)


@pytest.mark.parametrize(
    ("written", "outliers", "client", "is_so"),
    [
        (None, OUTLIERS, Client(HERE), True),
        (None, None, Client(HERE), False),
        (None, OUTLIERS, Client(""), False),
        (None, OUTLIERS, None, False),
        ({"enabled": False}, OUTLIERS, Client(HERE), False),
        ({"failover": [{"from": "us", "to": "eu"}]}, None, Client(HERE), False),
        ({"failoverPriority": ["rack"]}, OUTLIERS, Client(""), True),
        ({"distribute": [{"from": "us/*", "to": {"*": 100}}]}, None, Client(HERE), True),
        ({"distribute": [{"from": "eu/*", "to": {"*": 100}}]}, OUTLIERS, Client(HERE), False),
    ],
)
def test_near_endpoints_come_first_only_where_failing_ones_are_noticed(
    written: dict[str, Any] | None,
    outliers: OutlierDetection | None,
    client: Client | None,
    is_so: bool,
) -> None:
    balancer = (
        None if written is None else LoadBalancerSettings(locality_lb_setting=setting(**written))
    )
    service = ServiceRecord(host=HOST, namespace="default")

    assert (in_effect(balancer, outliers, service, client) is not None) is is_so


def rule(**policy: Any) -> DestinationRule:
    written = {
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"host": "a", "trafficPolicy": policy},
    }
    return msgspec.convert(written, DestinationRule, dec_hook=decode_scalar)


def names(rules: tuple[DestinationRule, ...], *scopes: Scope) -> list[set[str]]:
    """Of load assignments, as each scope asks for them."""
    service = ServiceRecord(
        host=HOST,
        namespace="default",
        ports=(Port(80, "http", Protocol.HTTP),),
        endpoints=tuple(map(endpoint, PLACES)),
    )
    options = MeshOptions(locality=HERE)
    index = MeshIndex.of(
        Snapshot(options=options, services={HOST: service}, destination_rules=rules)
    )
    return [set(service_assignments(service, View.of(index, one).rules(HOST))) for one in scopes]


def test_clients_elsewhere_have_their_own_order_only_where_there_is_one() -> None:
    here, there = Scope("default"), Scope("default", locality="eu/c/1")
    plain, near = rule(loadBalancer={"simple": "RANDOM"}), rule(outlierDetection={})

    assert names((plain,), here, there) == [{f"outbound|80||{HOST}"}] * 2
    assert names((near,), here, there) == [
        {f"outbound|80||{HOST};near"},
        {f"outbound|80||{HOST}@~eu/c/1;near"},
    ]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({}, "node"),
        ({"istio-locality": "us.a.1"}, "us/a/1"),
        ({"topology.kubernetes.io/region": "us"}, "us"),
        ({"topology.kubernetes.io/region": "us", "topology.kubernetes.io/zone": "a"}, "us/a"),
        ({"topology.kubernetes.io/zone": "a"}, "node"),
        ({"topology.istio.io/locality": "eu.c", "istio-locality": "us.a.1"}, "eu/c"),
    ],
)
def test_a_locality_is_what_the_labels_say(labels: dict[str, str], found: str) -> None:
    assert locality_of(labels, "node") == found


def test_localities_have_three_parts_and_patterns_leave_some_open() -> None:
    assert parts("us/a") == ("us", "a", "")
    assert [shared("us/a/1", place) for place in ("us/a/1", "us/a", "us/b/1", "eu/a/1")] == [
        3,
        2,
        1,
        0,
    ]
    assert all(matches("us/a/1", pattern) for pattern in ("*", "us", "us/*", "us/a/*", "us/a/1"))
    assert not any(matches("us/a/1", pattern) for pattern in ("eu/*", "us/b", "us/a/2"))


def test_labels_that_no_endpoint_has_make_no_scopes_of_their_own() -> None:
    rack = rule(
        outlierDetection={}, loadBalancer={"localityLbSetting": {"failoverPriority": ["rack"]}}
    )
    service = ServiceRecord(
        host=HOST, namespace="default", endpoints=(endpoint("", labels={"rack": "1"}),)
    )
    racks = {"a": "1", "b": "2", "c": "3", "d": ""}
    workloads = {
        uid: Workload(
            uid=uid,
            name=uid,
            namespace="default",
            netns="",
            labels={"rack": number} if number else {},
        )
        for uid, number in racks.items()
    }
    found = scopes(
        Snapshot(services={HOST: service}, destination_rules=(rack,), workloads=workloads)
    )

    assert {uid: scope.labels for uid, scope in found.items()} == {
        "a": (("rack", "1"),),
        "b": (("rack", "*"),),
        "c": (("rack", "*"),),
        "d": (),
    }
    assert len({scope.name for scope in found.values()}) == 3


def test_a_network_makes_no_scope_where_no_service_prefers_anything() -> None:
    workload = Workload(
        uid="a",
        name="a",
        namespace="default",
        netns="",
        labels={"topology.istio.io/network": "n"},
    )

    assert scopes(Snapshot(workloads={"a": workload})) == {"a": Scope("default")}
