"""Clusters say what the plan of their upstreams says."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from meshd.compile.envoy.clusters import cluster
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.tls import TlsMode, TlsPlan
from meshd.compile.plan.upstreams import (
    Assignment,
    Discovery,
    Dns,
    Eds,
    Fixed,
    Group,
    InternalListener,
    Limits,
    OriginalDestination,
    Place,
    RoundRobin,
    Settings,
    Upstream,
)

NAME = OutboundCluster(80, "a.shop.svc.cluster.local")


def printed(**parts: Any) -> dict[str, Any]:
    return json_format.MessageToDict(cluster(Upstream(name=NAME, **parts)))


@pytest.mark.parametrize(
    ("discovery", "expected"),
    [
        (Eds("b"), "EDS"),
        (OriginalDestination(), "ORIGINAL_DST"),
        (Fixed("198.18.0.1", 53, udp=True), "STATIC"),
        (InternalListener("b"), "STATIC"),
    ],
)
def test_the_type_of_a_cluster_is_how_its_endpoints_are_found(
    discovery: Discovery, expected: str
) -> None:
    made = printed(discovery=discovery)

    assert (made["name"], made.get("type", "STATIC")) == (str(NAME), expected)


def test_names_that_the_proxy_looks_up_are_in_the_cluster_itself() -> None:
    places = (Place("a.example.com", 443, weight=3),)
    made = printed(discovery=Dns(Assignment("a", (Group(places),)), first_address_only=True))

    (endpoint,) = made["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert endpoint["endpoint"]["address"]["socketAddress"]["address"] == "a.example.com"
    assert endpoint["loadBalancingWeight"] == 3
    assert made["clusterType"]["typedConfig"]["allAddressesInSingleEndpoint"]


def test_a_cluster_is_not_changed_by_the_next_one_with_the_same_settings() -> None:
    settings = Settings(balancing=RoundRobin(), limits=Limits(connections=7))
    plain = Upstream(NAME, Eds("a"), settings)
    before = cluster(plain).SerializeToString(deterministic=True)

    mutual = Upstream(NAME, Eds("b"), settings, TlsPlan(mode=TlsMode.MESH), "td", "V2")

    assert cluster(mutual).SerializeToString(deterministic=True) != before
    assert cluster(plain).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("mode", [TlsMode.PLAIN, TlsMode.MESH, TlsMode.AUTO])
def test_clients_are_announced_whatever_secures_the_connection(mode: TlsMode) -> None:
    made = printed(discovery=Eds("a"), tls=TlsPlan(mode=mode), proxy_protocol="V1")

    sockets = [match["transportSocket"] for match in made.get("transportSocketMatches", ())]
    sockets += [made["transportSocket"]] if "transportSocket" in made else []
    assert sockets
    assert {socket["name"] for socket in sockets} == {
        "envoy.transport_sockets.upstream_proxy_protocol"
    }
