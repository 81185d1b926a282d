"""What a change takes from objects that are not part of it is said to whoever makes the change."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from meshd.analysis.validate import check_references
from meshd.api.read import read_objects
from meshd.config.store import Store
from meshd.model.closed_policy import ClosedPolicy
from meshd.wire import Apply, Changed, DeleteNamed, Named
from tests.unit import storing

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec:
  hosts: [www.wiki.test]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {v: v1}}, {name: v2, labels: {v: v2}}]}
---
"""
EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.shop.test"]}]
---
"""
PARTS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: parts, namespace: shop}
spec: {http: [{route: [{destination: {host: web, port: {number: 80}}}]}]}
---
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: route, namespace: front}
spec:
  hosts: [www.shop.test]
  gateways: [infra/edge]
  http:
  - match: [{uri: {prefix: /parts}}]
    delegate: {name: parts, namespace: shop}
  - route:
    - destination: {host: web.shop.svc.cluster.local, subset: v2, port: {number: 80}}
    - {destination: {host: www.wiki.test, port: {number: 443}}, weight: 1}
---
"""
EVERYTHING = SERVICES + RULE + EDGE + PARTS + ROUTE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "config.d").mkdir()
    store = Store(tmp_path / "config.d", tmp_path / "lib")
    storing.apply(store, Apply((("f.yaml", EVERYTHING),)))
    return store


def apply(store: Store, text: str) -> list[str]:
    answer = storing.apply(store, Apply((("f.yaml", text),)))
    assert isinstance(answer, Changed)
    return of_route(answer.warnings)


def of_route(warnings: Iterable[str]) -> list[str]:
    start = "VirtualService front/route: "
    return [one.removeprefix(start) for one in warnings if one.startswith(start)]


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "message"),
    [
        ("dr", "shop", "web", "spec.http[1].route[0].destination.subset: "),
        ("gw", "infra", "edge", "spec.gateways[0]: Gateway infra/edge not found"),
        ("vs", "shop", "parts", "spec.http[0].delegate: VirtualService shop/parts not found"),
        ("svc", "shop", "web", "spec.http[1].route[0].destination.host: "),
        ("se", "shop", "outside", "spec.http[1].route[1].destination.host: "),
    ],
)
def test_deleting_warns_of_objects_in_use(
    store: Store, kind: str, namespace: str, name: str, message: str
) -> None:
    answer = storing.delete_named(store, DeleteNamed((Named(kind, (name,)),), namespace))
    assert any(one.startswith(message) for one in of_route(answer.warnings)), answer.warnings


@pytest.mark.parametrize("host", ["web.shop", "web.shop.svc", "WEB.shop.svc.cluster.local"])
@pytest.mark.parametrize("kind", ["dr", "svc"])
def test_a_host_is_in_use_by_each_name_that_is_compiled(store: Store, host: str, kind: str) -> None:
    apply(store, ROUTE.replace("web.shop.svc.cluster.local", host))
    answer = storing.delete_named(store, DeleteNamed((Named(kind, ("web",)),), "shop"))
    start = "spec.http[1].route[0].destination."
    assert any(one.startswith(start) for one in of_route(answer.warnings)), answer.warnings


def test_deleting_by_file_warns_of_objects_in_use(store: Store) -> None:
    answer = storing.apply(store, Apply((("f.yaml", EDGE),), delete=True))
    assert isinstance(answer, Changed)
    assert of_route(answer.warnings) == ["spec.gateways[0]: Gateway infra/edge not found"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{name: v2, labels: {v: v2}}", "{name: v3}", "spec.http[1].route[0].destination.subset"),
        ("host: web, subsets", "host: other, subsets", "spec.http[1].route[0].destination.subset"),
        (
            "port: 80}",
            "port: 82}",
            "spec.http[1].route[0].destination.port.number: 80 is not a port",
        ),
        ("{http: [", "{hosts: [parts.test], http: [", "spec.http[0].delegate: VirtualService"),
        ("www.wiki.test", "wiki.test", "spec.http[1].route[1].destination.host: "),
    ],
)
def test_what_a_change_takes_away_is_said(store: Store, old: str, new: str, message: str) -> None:
    (changed,) = [one for one in (SERVICES, RULE, PARTS) if old in one]
    found = apply(store, changed.replace(old, new))
    assert [one for one in found if one.startswith(message)], found


def test_references_missing_before_are_not_reported_again(store: Store) -> None:
    storing.delete_named(store, DeleteNamed((Named("dr", ("web",)),), "shop"))
    assert apply(store, SERVICES) == []
    assert apply(store, RULE) == []


def test_a_change_of_something_else_says_nothing(store: Store) -> None:
    other = RULE.replace("name: web", "name: other").replace("host: web", "host: other")
    assert apply(store, other) == []


def said(text: str) -> list[str]:
    first, *others = read_objects(text, "f.yaml")
    known = {read.object.key: read.object for read in others}
    return [f"{one.field}: {one.message}" for one in check_references([first], known)]


@pytest.mark.parametrize(
    ("selector", "port", "host", "rival"),
    [
        ("{istio: edge}", 80, "*.shop.test", True),
        ("{istio: edge, zone: a}", 80, "ns/*.shop.test", True),
        ("{istio: other}", 80, "*.shop.test", False),
        ("{istio: edge}", 81, "*.shop.test", False),
        ("{istio: edge}", 80, "a.shop.test", False),
    ],
)
def test_a_host_that_two_gateways_serve_on_one_port_is_named(
    selector: str, port: int, host: str, rival: bool
) -> None:
    other = EDGE.replace("name: edge, namespace: infra", "name: second, namespace: shop")
    other = other.replace("{istio: edge}", selector).replace("number: 80", f"number: {port}")
    found = said(other.replace("*.shop.test", host) + EDGE)
    message = f'spec.servers[0].hosts[0]: "{host}" is on port {port} of Gateway infra/edge too'
    assert (message in found) is rival


def test_a_destination_without_a_port_is_named_where_the_request_may_have_another() -> None:
    through_gateway = ROUTE.replace(", port: {number: 80}", "")
    message = (
        "spec.http[1].route[0].destination: has no port, and web.shop.svc.cluster.local has "
        "several (80, 81): the port of the request is taken"
    )
    assert message in said(through_gateway + SERVICES + EDGE + RULE + PARTS)
    own = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
---
"""
    assert said(own + SERVICES) == []


def test_an_address_that_two_services_have_is_named() -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec: {clusterIP: 198.19.0.7, ports: [{port: 80}]}
---
"""
    assert said(service.replace("NAME", "a") + service.replace("NAME", "b")) == [
        "spec.clusterIP: 198.19.0.7 is the address of Service shop/b too; one of them has it"
    ]


def test_a_policy_beside_one_that_is_not_in_force_is_said_to_change_nothing() -> None:
    closed = ClosedPolicy.named("shop", "broken")
    text = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}}
"""
    for namespace, count in (("shop", 1), ("other", 0)):
        reads = read_objects(text.replace("NAMESPACE", namespace), "a.yaml")
        found = check_references(reads, {closed.key: closed})
        assert len(found) == count
        assert all("broken is not in force" in one.message for one in found)
