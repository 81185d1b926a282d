"""A service whose DestinationRule cannot be used is refused, never reached in plaintext.

The mesh lets connections to unknown addresses pass (ALLOW_ANY), and servers listen at the service's
own addresses: whatever the mesh does not refuse, they answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshd.api.base import ObjectMeta
from meshd.api.destination_rule.types import DestinationRuleSpec
from meshd.model.closed_rule import ClosedRule
from tests.envoy.captured.place import Backend, Place

PORTS = {80: "http", 443: "tls", 9000: "tcp", 7000: "tcp"}
SPEAKS = {80: "http", 443: "tls", 9000: "tcp", 7000: "tcp after client"}
BACKENDS = {
    name: Backend(name, PORTS) for name in ("listed", "resolved", "passing", "headless", "other")
}
HOSTS = {name: f"{name}.example.com" for name in BACKENDS} | {
    "headless": "headless.shop.svc.cluster.local"
}
_PORTS = """
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 443, name: tls, protocol: TLS}
  - {number: 9000, name: tcp, protocol: TCP}
  - {number: 7000, name: any}
"""


def _entry(name: str, resolution: str) -> str:
    address = BACKENDS[name].address
    endpoints = "" if resolution == "NONE" else f"  endpoints: [{{address: {address}}}]\n"
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{HOSTS[name]}]
  addresses: [{address}]
  resolution: {resolution}
{endpoints}{_PORTS}---"""


OBJECTS = (
    _entry("listed", "STATIC")
    + _entry("resolved", "DNS")
    + _entry("passing", "NONE")
    + _entry("other", "STATIC")
    + f"""
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: shop}}
spec:
  clusterIP: None
  selector: {{app: headless}}
  ports:
  - {{port: 80, name: http}}
  - {{port: 443, name: tls}}
  - {{port: 9000, name: tcp}}
  - {{port: 7000, name: any}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: headless, namespace: shop}}
spec: {{address: {BACKENDS["headless"].address}, labels: {{app: headless}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routed, namespace: web}}
spec:
  hosts: [routed.example.com]
  http:
  - mirror: {{host: listed.example.com}}
    route: [{{destination: {{host: listed.example.com, port: {{number: 80}}}}}}]
"""
)
CLOSED = ("listed", "resolved", "passing", "headless")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("closed")
    with Place(home, BACKENDS.values()) as found:
        yield found


def rule(namespace: str, host: str) -> ClosedRule:
    meta = ObjectMeta(name=host.strip("*."), namespace=namespace)
    return ClosedRule(metadata=meta, spec=DestinationRuleSpec(host=host))


def answers(place: Place, name: str) -> dict[int, bool]:
    """Whether the server has answered on each port."""
    backend = BACKENDS[name]
    return {
        port: place.ask(spoken, backend.address, port, HOSTS[name]) == name
        for port, spoken in SPEAKS.items()
    }


ALL = dict.fromkeys(SPEAKS, True)
NONE = dict.fromkeys(SPEAKS, False)


@pytest.mark.parametrize("namespace", ["shop", "istio-system"])
def test_a_closed_service_is_sent_nothing_by_anybody(place: Place, namespace: str) -> None:
    client = place.workload("client", namespace="web")
    place.load(OBJECTS, client)
    for name in BACKENDS:
        assert answers(place, name) == ALL, name
    address = BACKENDS["listed"].address
    assert place.ask("http", address, 80, "routed.example.com") == "listed"

    place.load(OBJECTS, client, standing=[rule(namespace, HOSTS[name]) for name in CLOSED])
    assert {name: answers(place, name) for name in CLOSED} == dict.fromkeys(CLOSED, NONE)
    assert place.ask("http", address, 80, "routed.example.com") == ""
    assert answers(place, "other") == ALL


def test_a_rule_of_the_clients_closes_services_of_others_to_those_clients_only(
    place: Place,
) -> None:
    rules = [rule("web", "*.example.com")]
    place.load(OBJECTS, place.workload("client", namespace="web"), standing=rules)
    assert answers(place, "listed") == answers(place, "other") == NONE
    assert answers(place, "headless") == ALL

    place.load(OBJECTS, place.workload("client", namespace="neighbours"), standing=rules)
    assert answers(place, "listed") == answers(place, "other") == ALL
