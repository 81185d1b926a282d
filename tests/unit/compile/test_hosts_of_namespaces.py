"""One host that several namespaces declare: each client has what its own namespace says."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: NAMESPACE}
spec:
  hosts: [HOST]
  addresses: [ADDRESS]
  resolution: STATIC
  exportTo: ["EXPORT"]
  ports: [{number: 80, name: NAME}]
  endpoints: [{address: ENDPOINT}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 198.19.0.1, selector: {app: web}, ports: [{name: NAME, port: 80}]}
---
"""


def entry(namespace: str, place: int, export_to: str = "*", host: str = "api.test") -> str:
    words = {
        "NAMESPACE": namespace,
        "HOST": host,
        "ADDRESS": f"198.19.9.{place}",
        "EXPORT": export_to,
        "ENDPOINT": f"198.18.9.{place}",
    }
    text = ENTRY
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def workload(name: str, namespace: str, number: int) -> Workload:
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns=f"/run/netns/{name}",
        labels={"app": name},
        addresses=(f"198.18.0.{number}",),
    )


WORKLOADS = (
    workload("web", "shop", 1),
    workload("one", "one", 2),
    workload("two", "two", 3),
    workload("three", "three", 4),
)


def compiled(text: str) -> Compiled:
    objects = [read.object for read in read_objects(text, "test.yaml")]
    snapshot = build_snapshot(objects, WORKLOADS, MeshOptions(), {})
    return as_messages(Compiler().compile(snapshot, [one.uid for one in WORKLOADS]))[Pool.TRAFFIC]


def endpoints(found: Compiled, cluster: str) -> list[str]:
    name = found[Kind.CLUSTER][cluster].eds_cluster_config.service_name or cluster
    groups = found[Kind.ENDPOINT][name].endpoints
    return [
        end.endpoint.address.socket_address.address
        for group in groups
        for end in group.lb_endpoints
    ]


def http_clusters(found: Compiled, namespace: str, host: str) -> list[str]:
    """Of requests that clients of the namespace send to the host."""
    routes = found[Kind.ROUTE].get(f"80@{namespace}")
    virtual_hosts: list[Any] = list(routes.virtual_hosts) if routes else []
    return [
        endpoint
        for virtual_host in virtual_hosts
        if host in virtual_host.domains
        for endpoint in endpoints(found, virtual_host.routes[0].route.cluster)
    ]


CASES = {
    "of two both are there": (
        entry("one", 1) + entry("two", 2),
        "api.test",
        {"one": ["198.18.9.1"], "two": ["198.18.9.2"], "three": ["198.18.9.1"]},
    ),
    "a private one is its own namespace's": (
        entry("one", 1, ".") + entry("two", 2),
        "api.test",
        {"one": ["198.18.9.1"], "two": ["198.18.9.2"], "three": ["198.18.9.2"]},
    ),
    "two private ones are nobody else's": (
        entry("one", 1, ".") + entry("two", 2, "."),
        "api.test",
        {"one": ["198.18.9.1"], "two": ["198.18.9.2"], "three": []},
    ),
    "a service is not taken from others": (
        SERVICE + entry("one", 1, host="web.shop.svc.cluster.local"),
        "web.shop.svc.cluster.local",
        {"one": ["198.18.9.1"], "two": ["198.18.0.1"], "shop": ["198.18.0.1"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_requests_go_where_the_clients_namespace_says(case: str) -> None:
    text, host, wanted = CASES[case]
    found = compiled(text.replace("NAME", "http"))
    assert {namespace: http_clusters(found, namespace, host) for namespace in wanted} == wanted


@pytest.mark.parametrize("case", CASES)
def test_connections_go_where_the_clients_namespace_says(case: str) -> None:
    text, host, wanted = CASES[case]
    found = compiled(text.replace("NAME", "tcp"))
    for namespace, places in wanted.items():
        chains = found[Kind.LISTENER][f"outbound@{namespace}"].filter_chains
        names = [one.name for one in chains if host in one.name]
        assert [end for name in names for end in endpoints(found, name)] == places, namespace
