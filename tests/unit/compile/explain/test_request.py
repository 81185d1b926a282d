"""``meshctl explain``: the verdict, and each stage on the way to it."""

from __future__ import annotations

import msgspec
import pytest

from meshd import wire
from meshd.api.read import read_objects
from meshd.compile.explain.request import explain
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.registry.registry import build_snapshot, hosts_without_address

MESH = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: reviews}, ports: [{name: tcp, port: 3306, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{name: http, port: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: john}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {regex: "/teapot/.*"}}]
    directResponse: {status: 418}
  - match: [{uri: {prefix: /old}, queryParams: {go: {exact: "1"}}}]
    redirect: {uri: /new}
  - match: [{uri: {prefix: /books}}]
    delegate: {name: books}
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books}
spec:
  http:
  - name: books
    route: [{destination: {host: reviews, subset: v2}}]
"""


def workload(name: str, index: int, **labels: str) -> Workload:
    return Workload(
        uid=f"default.{name}",
        name=name,
        namespace="default",
        netns=f"/run/netns/{name}",
        service_account=name,
        labels=labels,
        addresses=(f"198.18.0.{index}",),
        ports=(NamedPort("http", 9080),),
    )


CLIENT = workload("client", 1, app="client")
SERVERS = (
    workload("reviews-v1", 2, app="reviews", version="v1"),
    workload("reviews-v2", 3, app="reviews", version="v2"),
)


def ask(
    destination: str,
    path: str = "/",
    headers: tuple[tuple[str, str], ...] = (),
    policy: str = "",
    more: str = "",
    client: Workload = CLIENT,
) -> wire.Explanation:
    options = MeshOptions(
        outbound_policy=policy or "ALLOW_ANY",  # type: ignore[arg-type]
        locality="us/a",
    )
    objects = [read.object for read in read_objects(MESH + more, "mesh.yaml")]
    hosts = hosts_without_address(objects, options)
    addresses = {host: f"198.19.0.{index}" for index, host in enumerate(hosts, 1)}
    snapshot = build_snapshot(objects, (client, *SERVERS), options, addresses)
    request = wire.Explain("client", destination, path=path, headers=headers)
    return explain(snapshot, client, request)


@pytest.mark.parametrize(
    ("destination", "path", "headers", "verdict", "endpoints"),
    [
        ("reviews:9080", "/", (), "routed", ("198.18.0.2:9080",)),
        ("reviews", "/", (), "routed", ("198.18.0.2:9080",)),
        ("reviews.default.svc", "/", (("End-User", "john"),), "routed", ("198.18.0.3:9080",)),
        ("reviews:9080", "/teapot/1", (), "answered 418 by the proxy", ()),
        ("reviews:9080", "/old?go=1", (), "redirected", ()),
        ("reviews:9080", "/old?go=2", (), "routed", ("198.18.0.2:9080",)),
        ("reviews:9080", "/books/1", (), "routed", ("198.18.0.3:9080",)),
        ("db:3306", "/", (), "routed", ("198.18.0.2:9080", "198.18.0.3:9080")),
        ("nobody:8000", "/", (), "no healthy endpoint: 503", ()),
        ("example.com:443", "/", (), "passed through as it is", ()),
    ],
)
def test_the_verdict_and_the_endpoints(
    destination: str,
    path: str,
    headers: tuple[tuple[str, str], ...],
    verdict: str,
    endpoints: tuple[str, ...],
) -> None:
    found = ask(destination, path, headers)
    assert (found.verdict, found.endpoints) == (verdict, endpoints)


def test_what_is_in_no_registry_is_refused_where_the_settings_say_so() -> None:
    assert ask("example.com:443", policy="REGISTRY_ONLY").verdict == "refused: not in the registry"


def test_the_delegate_that_a_route_comes_from_is_told() -> None:
    told = {step.stage: step.detail for step in ask("reviews:9080", "/books").stages}
    assert told["route"] == (
        "books, of networking.istio.io/v1alpha3/namespaces/default/virtual-service/reviews, "
        "from its delegate default/books"
    )


MIRRORED = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nobody}
spec:
  hosts: [nobody]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
    mirror: {host: reviews, subset: v2}
    mirror_percent: 50
    mirrors: [{destination: {host: nobody}, percentage: {value: 0.5}}]
"""


def test_where_copies_of_requests_go_is_told() -> None:
    steps = ask("nobody:8000", more=MIRRORED).stages
    assert {step.detail for step in steps if step.stage == "mirror"} == {
        "outbound|9080|v2|reviews.default.svc.cluster.local: a copy of 50 % of the requests",
        "outbound|8000||nobody.default.svc.cluster.local: a copy of 0.5 % of the requests",
    }


def test_the_order_of_endpoints_by_locality_is_told() -> None:
    far = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: far}
spec: {address: 198.18.0.4, labels: {app: reviews}, locality: eu/c}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}}
"""
    found = ask("db:3306", more=far)
    assert [step.detail for step in found.stages if step.stage in {"near", "endpoint"}] == [
        "from us/a: near endpoints first, others when those fail",
        "198.18.0.2:9080 default.reviews-v1 (mutual TLS), priority 0, us/a",
        "198.18.0.3:9080 default.reviews-v2 (mutual TLS), priority 0, us/a",
        "198.18.0.4:9080, priority 1, eu/c",
    ]


def test_a_name_that_is_looked_up_for_each_request_is_its_own_endpoint() -> None:
    wild = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.example.com"]
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
"""
    found = ask("www.example.com:80", more=wild)
    assert (found.verdict, found.endpoints) == ("routed", ("www.example.com:80",))
    assert found.cluster == "outbound|80||*.example.com"


def test_a_service_of_the_host_is_redirected_to_a_port_of_its_own() -> None:
    host = HostService(cgroup="meshd_services.slice/x.slice", outbound_port=15103)
    told = ask("reviews:9080", client=msgspec.structs.replace(CLIENT, netns="", host=host)).stages
    assert told[2].detail == "TCP to port 9080 is redirected to 15103 on the host"
    told = ask("reviews:9080").stages
    assert told[2].detail == "TCP to port 9080 is redirected to 15001 in its namespace"


def test_each_stage_is_told() -> None:
    found = ask("reviews:9080")
    assert [step.stage for step in found.stages] == [
        "source", "name", "capture", "listener", "chain", "host", "route", "cluster", "tls",
        "endpoint",
    ]  # fmt: skip
    assert found.cluster == "outbound|9080|v1|reviews.default.svc.cluster.local"
    assert found.identity == "spiffe://cluster.local/ns/default/sa/client"
