"""Copies of requests take one way, on which they are told whose they are, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from meshd.compile.compiled import Compiled, Kind
from meshd.compile.envoy.wellknown import HOST_STATE, NETNS_STATE
from meshd.compile.names import MIRROR
from meshd.model.workload import HostService
from tests.unit.compile.messages import messages_in
from tests.unit.compile.test_compiler import compiled, snapshot, workload

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}, {name: any, port: 70}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {clusterIP: None, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.wild.test"]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {app: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  gateways: [mesh, edge]
  http:
  - route: [{destination: {host: reviews, port: {number: 80}}}]
    retries: {attempts: 3}
    MIRRORS
---
"""
TARGETS = {
    "host: reviews, port: {number: 80}": "outbound|80||reviews.default.svc.cluster.local@~gateway",
    "host: reviews, port: {number: 70}": "outbound|70||reviews.default.svc.cluster.local@~gateway",
    "host: bare": "outbound|80||bare.default.svc.cluster.local",
    "host: a.wild.test, port: {number: 80}": "outbound|80||a.wild.test",
}
CLIENTS = (workload("edge", 1), workload("reviews", 1))
ON_ITS_OWN_ACCOUNT = {
    "envoy.config.cluster.v3.Cluster.PreconnectPolicy",
    "envoy.config.core.v3.ApiConfigSource",
    "envoy.config.core.v3.GrpcService",
    "envoy.config.core.v3.HealthCheck",
    "envoy.config.core.v3.HttpUri",
    "envoy.config.route.v3.HedgePolicy",
    "envoy.config.route.v3.InternalRedirectPolicy",
    "envoy.config.route.v3.RouteAction.RequestMirrorPolicy",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
}
"""Parts of a configuration by which a proxy sends what no connection of a client asks for."""


def mirrored(target: str) -> Compiled:
    text = SERVICES + ROUTE.replace("MIRRORS", f"mirror: {{{target}}}")
    return compiled(snapshot(text, *CLIENTS))


def parts(there: Compiled, name: str) -> Iterator[Any]:
    """Messages of one kind, wherever they are."""
    for messages in there.values():
        for message in messages.values():
            found = messages_in(message)
            yield from (one for one in found if one.DESCRIPTOR.full_name.endswith(name))


def policies(there: Compiled) -> list[Any]:
    return list(parts(there, ".RequestMirrorPolicy"))


def values(policy: Any) -> dict[str, str]:
    appended = (
        one.append.header for one in policy.request_headers_mutations if one.append.ByteSize()
    )
    return {header.key: header.value for header in appended}


def test_without_copies_nothing_is_sent_on_the_proxys_own_account() -> None:
    there = compiled(snapshot(SERVICES + ROUTE.replace("MIRRORS", ""), *CLIENTS))
    kinds = {
        one.DESCRIPTOR.full_name
        for messages in there.values()
        for message in messages.values()
        for one in messages_in(message)
    }

    assert not kinds & ON_ITS_OWN_ACCOUNT
    assert MIRROR not in there[Kind.LISTENER]
    assert MIRROR not in there[Kind.CLUSTER]


@pytest.mark.parametrize("target", TARGETS)
def test_copies_take_the_one_way_and_name_a_cluster_that_is_there(target: str) -> None:
    there = mirrored(target)
    found = policies(there)

    assert len({values(policy)["x-meshd-copy-to"] for policy in found}) == 1
    assert {policy.cluster for policy in found} == {MIRROR}
    for policy in found:
        assert values(policy)["x-meshd-copy-to"] == TARGETS[target]
    if "wild" not in target:
        assert TARGETS[target] in there[Kind.CLUSTER]


def test_headers_of_clients_are_removed_before_any_is_set() -> None:
    for policy in policies(mirrored("host: reviews")):
        removed = [one.remove for one in policy.request_headers_mutations if one.remove]
        first = [bool(one.remove) for one in policy.request_headers_mutations]
        assert first == sorted(first, reverse=True)
        assert set(values(policy)) < set(removed)


def test_the_headers_do_not_go_on() -> None:
    there = mirrored("host: reviews")
    policy = policies(there)[0]
    removed = {one.remove for one in policy.request_headers_mutations if one.remove}
    routes = [
        one
        for one in messages_in(there[Kind.LISTENER][MIRROR])
        if one.DESCRIPTOR.full_name == "envoy.config.route.v3.Route"
    ]

    assert all(set(one.request_headers_to_remove) == removed for one in routes[:-1])
    assert routes[-1].direct_response.status == 503
    for one in routes[:-1]:
        asked = {header.name for header in one.match.headers if header.present_match}
        assert "x-meshd-copy-identity" in asked
        assert asked & {"x-meshd-copy-netns", "x-meshd-copy-host"}


def test_only_copies_reach_the_listener() -> None:
    """It has no socket; no cluster but its own leads there, and no route or filter to that."""
    there = mirrored("host: reviews")
    leading = [
        name
        for name, cluster in there[Kind.CLUSTER].items()
        for one in messages_in(cluster)
        if one.DESCRIPTOR.full_name.endswith("EnvoyInternalAddress")
        and one.server_listener_name == MIRROR
    ]

    assert there[Kind.LISTENER][MIRROR].HasField("internal_listener")
    assert leading == [MIRROR]
    for kind in (".RouteAction", ".ClusterWeight", ".TcpProxy"):
        for one in parts(there, kind):
            assert MIRROR not in {getattr(one, "cluster", ""), getattr(one, "name", "")}


def test_the_name_of_a_cluster_may_have_what_is_a_command_of_formats() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: bare}
spec:
  host: bare
  workloadSelector: {matchLabels: {app: reviews}}
  trafficPolicy: {tls: {mode: SIMPLE, credentialName: secret}}
---
"""
    text = SERVICES + rule + ROUTE.replace("MIRRORS", "mirror: {host: bare}")
    there = compiled(snapshot(text, workload("reviews", 1)))
    policy = policies(there)[0]
    name = values(policy)["x-meshd-copy-to"]

    assert "%%default" in name
    assert name.replace("%%", "%") in there[Kind.CLUSTER]


def test_a_service_of_the_host_says_so_and_a_pod_says_where_it_is() -> None:
    place = HostService(cgroup="a.slice", outbound_port=15101, inbound_port=15102)
    of_host = workload("reviews", 2)
    there = compiled(
        snapshot(
            SERVICES, workload("reviews", 1), msgspec.structs.replace(of_host, host=place, netns="")
        )
    )
    for uid, own in (("default.reviews-1", NETNS_STATE), ("default.reviews-2", HOST_STATE)):
        listener = there[Kind.LISTENER][f"{uid}|outbound"].SerializeToString()
        assert [key for key in (NETNS_STATE, HOST_STATE) if key.encode() in listener] == [own]
