"""What a DestinationRule is about that is not in force is refused to its clients, not opened."""

from __future__ import annotations

from typing import Any

import pytest

from meshd import wire
from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.api.destination_rule.types import DestinationRuleSpec
from meshd.api.read import read_objects
from meshd.compile.compiler import Compiled, Compiler, Kind
from meshd.compile.explain.request import explain
from meshd.config.withheld import closed_object
from meshd.model.closed_rule import ClosedRule
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages, messages_in

HOST = "db.shop.svc.cluster.local"
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  clusterIP: ADDRESS
  selector: {app: db}
  ports: [{name: http, port: 80}, {name: tcp, port: 9000}, {name: tls, port: 443}, {port: 7000}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 198.19.0.2, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [front.test]
  gateways: [mesh, edge]
  http:
  - match: [{uri: {prefix: /copied}}]
    route: [{destination: {host: web}}]
    mirror: {host: db, port: {number: 80}}
  - route:
    - {destination: {host: db, port: {number: 80}}, weight: 50}
    - {destination: {host: web}, weight: 50}
  tcp:
  - route: [{destination: {host: db, port: {number: 9000}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
"""
ENTRY = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: shop}
spec:
  hosts: ["HOST"]
  resolution: RESOLUTION
  ports: [{number: 80, name: http}, {number: 9000, name: tcp}, {number: 443, name: tls}]
"""


def workload(name: str, namespace: str, number: int) -> Workload:
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns=f"/run/netns/{name}",
        labels={"app": name},
        addresses=(f"198.18.0.{number}",),
        enrolled=True,
    )


WORKLOADS = (
    workload("db", "shop", 1),
    workload("web", "shop", 2),
    workload("edge", "shop", 3),
    workload("one", "one", 4),
    workload("two", "two", 5),
)


def rule(namespace: str, host: str = HOST, **spec: Any) -> ClosedRule:
    meta = ObjectMeta(name="rule", namespace=namespace)
    return ClosedRule(metadata=meta, spec=DestinationRuleSpec(host=host, **spec))


def compiled(*rules: ClosedRule, text: str = "", address: str = "198.19.0.1") -> Compiled:
    whole = SERVICES.replace("ADDRESS", address) + text
    objects = [read.object for read in read_objects(whole, "test.yaml")]
    snapshot = build_snapshot((*objects, *rules), WORKLOADS, MeshOptions(), {})
    return as_messages(Compiler().compile(snapshot, [one.uid for one in WORKLOADS]))[Pool.TRAFFIC]


def named(found: Compiled, kind: Kind, name: str, host: str = HOST) -> set[str]:
    """Clusters of the host that a listener or a route configuration names."""
    message = found[kind].get(name)
    return {
        value
        for part in (messages_in(message) if message is not None else ())
        for field, value in part.ListFields()
        if field.name in {"cluster", "name"} and isinstance(value, str) and host in value
        if value.startswith("outbound|")
    }


def chosen_by(found: Compiled, scope: str, host: str = HOST) -> set[str]:
    """Clusters of the host that clients of a scope are led to, by HTTP or by address."""
    clusters: set[str] = set()
    for kind in (Kind.LISTENER, Kind.ROUTE):
        for name in found[kind]:
            if scope in name.replace("|", "@").split("@") or f"{scope}." in name:
                clusters |= named(found, kind, name, host)
    return clusters


def everywhere(found: Compiled, host: str = HOST) -> set[str]:
    return {
        cluster
        for kind in (Kind.LISTENER, Kind.ROUTE)
        for name in found[kind]
        for cluster in named(found, kind, name, host)
    }


@pytest.mark.parametrize("address", ["198.19.0.1", "None"])
def test_every_way_to_a_closed_service_stays_and_leads_nowhere(address: str) -> None:
    before, after = compiled(address=address), compiled(rule("shop"), address=address)
    assert everywhere(before) & before[Kind.CLUSTER].keys()
    assert not [name for name in after[Kind.CLUSTER] if HOST in name]
    hidden = {name.partition("@")[0] for name in everywhere(after)}
    assert hidden == {name.partition("@")[0] for name in everywhere(before)}
    # Nothing falls through to what no service wants: the ways are the same as before.
    for kind in (Kind.LISTENER, Kind.ROUTE):
        assert before[kind].keys() == after[kind].keys()
    assert "outbound|80||web.shop.svc.cluster.local" in after[Kind.CLUSTER]


@pytest.mark.parametrize("resolution", ["DNS", "NONE", "DYNAMIC_DNS", "DNS_ROUND_ROBIN"])
def test_it_is_so_whatever_the_source_of_endpoints(resolution: str) -> None:
    host = "*.db.test" if resolution == "DYNAMIC_DNS" else "db.test"
    entry = ENTRY.replace("HOST", host).replace("RESOLUTION", resolution)
    before, after = compiled(text=entry), compiled(rule("shop", host), text=entry)
    assert everywhere(before, host) & before[Kind.CLUSTER].keys()
    assert everywhere(after, host)
    assert not [name for name in after[Kind.CLUSTER] if host in name]


def test_a_rule_of_a_client_s_namespace_closes_the_service_for_these_clients_only() -> None:
    found = compiled(rule("one"))
    for client in ("one", "two", "shop"):
        clusters = chosen_by(found, client)
        assert clusters, client
        assert bool(clusters & found[Kind.CLUSTER].keys()) is (client != "one"), client
    assert f"outbound|80||{HOST}" in found[Kind.CLUSTER]


def test_a_rule_of_a_stranger_s_namespace_closes_nothing_for_others() -> None:
    assert compiled(rule("evil", "*"))[Kind.CLUSTER] == compiled()[Kind.CLUSTER]


def test_a_rule_of_the_root_namespace_closes_all_that_it_is_about() -> None:
    found = compiled(rule("istio-system", "*"))
    assert not [name for name in found[Kind.CLUSTER] if "shop.svc" in name]


def test_a_rule_closes_a_service_for_the_clients_only_that_it_selects_or_is_exported_to() -> None:
    selector = WorkloadSelector(match_labels={"app": "web"})
    assert (
        f"outbound|80||{HOST}" in compiled(rule("shop", workload_selector=selector))[Kind.CLUSTER]
    )
    found = compiled(rule("shop", export_to=("two",)))
    assert not chosen_by(found, "two") & found[Kind.CLUSTER].keys()
    assert chosen_by(found, "one") & found[Kind.CLUSTER].keys()


def test_a_rule_that_is_in_force_opens_nothing_that_another_of_the_same_host_closes() -> None:
    text = f"""
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: good, namespace: shop}}
spec: {{host: {HOST}}}
"""
    found = compiled(rule("shop"), text=text)
    assert not [name for name in found[Kind.CLUSTER] if HOST in name]


def test_explain_says_that_it_is_closed() -> None:
    objects = [read.object for read in read_objects(SERVICES.replace("ADDRESS", "None"), "a.yaml")]
    snapshot = build_snapshot((*objects, rule("shop")), WORKLOADS, MeshOptions(), {})
    asked = wire.Explain("two.two", f"{HOST}:80")
    told = explain(snapshot, WORKLOADS[-1], asked, lambda _key, field: f"a.yaml:7 {field}")
    assert told.verdict == f"refused: {rule('shop').key} is not in force"
    (why,) = (step.detail for step in told.stages if step.stage == "endpoints")
    assert why.endswith(f"closed, because {rule('shop').key} is not in force (a.yaml:7 spec.host)")


@pytest.mark.parametrize(
    ("name", "host", "what"),
    [
        ("db", HOST, "Service shop/db"),
        ("entry", "entry.test", "ServiceEntry shop/entry"),
        ("front", "front.test", "the VirtualService of the route"),
    ],
)
def test_explain_says_which_object_is_not_in_force(name: str, host: str, what: str) -> None:
    text = SERVICES.replace("ADDRESS", "198.19.0.1")
    text += ENTRY.replace("HOST", "entry.test").replace("RESOLUTION", "STATIC")
    objects = [
        (closed_object(read.object) if read.object.metadata.name == name else None) or read.object
        for read in read_objects(text, "a.yaml")
    ]
    snapshot = build_snapshot(objects, WORKLOADS, MeshOptions(), {})
    told = explain(snapshot, WORKLOADS[-1], wire.Explain("two.two", f"{host}:80"))
    said = f"closed, because {what} is not in force; meshctl status says why"
    assert any(step.detail.endswith(said) for step in told.stages), told.stages


def test_what_serves_a_closed_service_is_still_served_as_before() -> None:
    before, after = compiled(), compiled(rule("shop"))
    inbound = [name for name in before[Kind.LISTENER] if "inbound" in name]
    assert inbound
    for name in inbound:
        assert after[Kind.LISTENER][name] == before[Kind.LISTENER][name]
