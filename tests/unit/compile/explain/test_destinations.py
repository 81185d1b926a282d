"""Which service, address and request explain takes a written destination for."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.unit.compile.explain.test_request import EDGE, ask, stages

MORE = """
---
apiVersion: v1
kind: Service
metadata: {name: members}
spec: {clusterIP: None, selector: {app: reviews}, ports: [{name: tcp, port: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: pages}
spec: {clusterIP: None, selector: {app: reviews}, ports: [{name: http, port: 7001}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: listed}
spec:
  hosts: [listed.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 198.18.7.7}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hosts}
spec:
  hosts: [nobody]
  http:
  - match: [{authority: {exact: nobody}}]
    name: without-port
    directResponse: {status: 200}
  - match: [{authority: {exact: "nobody:8000"}}]
    name: with-port
    directResponse: {status: 201}
  - match: [{uri: {prefix: /old/}}]
    name: moved
    redirect: {prefixRewrite: /new/, authority: reviews, scheme: https}
  - name: rest
    rewrite: {uri: /v2, authority: inner}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 1}
    - {destination: {host: reviews, subset: v2}, weight: 2}
"""


@pytest.mark.parametrize(
    ("destination", "endpoints"),
    [
        ("members", ("198.18.0.2:7000", "198.18.0.3:7000")),
        ("reviews-v1.members:7000", ("198.18.0.2:7000",)),
        ("reviews-v2.members.default.svc.cluster.local:7000", ("198.18.0.3:7000",)),
        ("198.18.0.3:7000", ("198.18.0.3:7000",)),
        ("reviews-v1.pages", ("198.18.0.2:7001", "198.18.0.3:7001")),
        ("REVIEWS.default.svc.cluster.local.", ("198.18.0.2:9080",)),
    ],
)
def test_an_endpoint_of_a_headless_service_is_reached_by_its_own_name(
    destination: str, endpoints: tuple[str, ...]
) -> None:
    found = ask(destination, more=MORE)
    assert (found.verdict, found.endpoints) == ("routed", endpoints), found


def test_an_address_of_the_mesh_that_is_no_services_is_refused() -> None:
    found = ask("198.19.9.9:80", more=MORE, service_cidr="198.19.0.0/16")
    assert found.verdict == "answered 502 by the proxy", found
    found = ask("listed.test", headers=(("Host", "else"),), more=MORE, service_cidr="198.19.0.0/16")
    assert found.endpoints == ("198.18.7.7:80",), found


@pytest.mark.parametrize(
    ("destination", "host", "route"),
    [
        ("nobody", "", "with-port"),
        ("nobody:8000", "", "with-port"),
        ("nobody:8000", "nobody", "without-port"),
        ("nobody.default:8000", "", "rest"),
    ],
)
def test_the_host_of_a_request_is_as_clients_write_it(
    destination: str, host: str, route: str
) -> None:
    headers = (("Host", host),) if host else ()
    told = stages(ask(destination, headers=headers, more=MORE))["route"]
    assert told.startswith(f"{route}, of ")


@pytest.mark.parametrize("begins_as", ["tls", "other"])
def test_only_http_is_understood_where_all_services_of_a_port_speak_it(
    begins_as: Literal["tls", "other"],
) -> None:
    found = ask("reviews:9080", begins_as=begins_as)
    assert found.verdict == "refused: 400, because only HTTP is understood on this port"


def test_explain_tells_what_the_upstream_receives() -> None:
    steps = ask("nobody.default:8000", "/a?b=c", more=MORE).stages
    host = "reviews.default.svc.cluster.local"
    assert [step.detail for step in steps if step.stage in {"rewrite", "cluster"}] == [
        f"outbound|9080|v1|{host}: inner/v2a?b=c",
        f"outbound|9080|v2|{host}: inner/v2a?b=c",
        f"outbound|9080|v1|{host} (33.3 %)",
        f"outbound|9080|v2|{host} (66.7 %)",
    ]


def test_where_a_redirect_leads_is_told() -> None:
    told = stages(ask("nobody.default:8000", "/old/x?y", more=MORE))
    assert told["redirect"] == "301 to https://reviews/new/x?y"


def test_a_request_to_a_gateway_has_the_scheme_of_its_server() -> None:
    scheme = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: by-scheme}
spec:
  hosts: [site.test]
  gateways: [edge]
  http:
  - {name: secure, match: [{scheme: {exact: https}}], directResponse: {status: 200}}
"""
    told = stages(ask("site.test:443", more=EDGE + scheme, from_outside=True))
    assert told["route"].startswith("secure, of ")
    told = stages(ask("site.test:80", more=EDGE + scheme, from_outside=True))
    assert not told["route"].startswith("secure, of ")
