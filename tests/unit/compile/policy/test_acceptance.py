"""To which endpoints clients speak mutual TLS, and to which clear text."""

from __future__ import annotations

import msgspec
import pytest

from meshd.api.gateway.types import GatewaySelection
from meshd.api.read import read_objects
from meshd.compile.policy.acceptance import as_accepted
from meshd.model.service import Endpoint
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot

GATEWAY = """
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: edge}
  ports: [{name: http2, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443},
    {name: metrics, port: 15020}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["*"], tls: {mode: PASSTHROUGH}}
---
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: istio-system}
spec:
  hosts: [far.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 81, name: tcp, protocol: TCP}]
  endpoints: [{address: 198.18.0.9, serviceAccount: far, labels: {istio: edge}}]
---
"""
EDGE = Workload(
    uid="istio-system.edge",
    name="edge",
    namespace="istio-system",
    netns="/run/netns/edge",
    service_account="edge",
    labels={"istio": "edge"},
    addresses=("198.18.0.1",),
)


def mutual(text: str, *workloads: Workload, elsewhere: bool = False) -> dict[int, bool]:
    """For each port of the one service's one endpoint: whether clients speak mutual TLS to it."""
    objects = [read.object for read in read_objects(text, "test.yaml")]
    here, there = ((), workloads) if elsewhere else (workloads, ())
    snapshot = as_accepted(build_snapshot(objects, here, MeshOptions(), {}, elsewhere=there))
    (service,) = snapshot.services.values()
    return {endpoint.service_port: endpoint.mutual_tls for endpoint in service.endpoints}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_port_that_a_gateway_opens_takes_clear_text_on_whichever_node(elsewhere: bool) -> None:
    """Behind its Service's target ports; another port of the same workload is its proxy's."""
    found = mutual(GATEWAY, EDGE, elsewhere=elsewhere)
    assert found == {80: False, 443: False, 15020: True}


def test_a_listed_endpoint_may_be_a_gateway_too() -> None:
    text = ENTRY + GATEWAY.partition("---")[2]
    assert mutual(text) == {80: False, 81: True}


def test_a_gateway_that_selects_another_workload_opens_nothing_here() -> None:
    other = GATEWAY.replace("selector: {istio: edge}\n  servers", "selector: {x: y}\n  servers")
    assert mutual(other, EDGE) == {80: True, 443: True, 15020: True}


@pytest.mark.parametrize("namespace", ["a-thief", "z-thief"])
@pytest.mark.parametrize("selection", ["any-namespace", "own-namespace"])
def test_listing_the_address_of_another_workload_opens_none_of_its_ports(
    namespace: str, selection: GatewaySelection
) -> None:
    """Their clients would speak plaintext there. Services before and behind theirs are tried."""
    theirs = ENTRY.replace("labels: {istio: edge}", "labels: {app: far}")
    listed = ENTRY.replace("far.test", "x.test").replace("istio-system", namespace)
    gateway = GATEWAY.partition("---")[2].replace("default", namespace)
    objects = [read.object for read in read_objects(theirs + listed + gateway, "test.yaml")]
    options = MeshOptions(gateway_selection=selection)
    services = as_accepted(build_snapshot(objects, (), options, {})).services
    found = {
        host: [endpoint.mutual_tls for endpoint in service.endpoints]
        for host, service in services.items()
    }
    assert found == {"far.test": [True, True], "x.test": [False, True]}


@pytest.mark.parametrize(("mode", "wanted"), [("istio", True), ("disabled", False)])
def test_the_label_of_a_pod_counts_before_anything_else(mode: str, wanted: bool) -> None:
    labels = {**EDGE.labels, "security.istio.io/tlsMode": mode}
    found = mutual(GATEWAY, msgspec.structs.replace(EDGE, labels=labels))
    assert found == dict.fromkeys((80, 443, 15020), wanted)


def test_the_label_brings_no_workload_into_the_mesh() -> None:
    labels = {**EDGE.labels, "security.istio.io/tlsMode": "istio"}
    outside = msgspec.structs.replace(EDGE, labels=labels, enrolled=False)
    assert not any(mutual(GATEWAY, outside).values())


def test_an_endpoint_that_nothing_concerns_is_left_alone() -> None:
    objects = [read.object for read in read_objects(GATEWAY, "test.yaml")]
    snapshot = build_snapshot(objects, (EDGE,), MeshOptions(), {})
    (before,), (after,) = snapshot.services.values(), as_accepted(snapshot).services.values()

    def of_metrics(places: tuple[Endpoint, ...]) -> list[Endpoint]:
        return [one for one in places if one.service_port == 15020]

    (one,), (same,) = of_metrics(before.endpoints), of_metrics(after.endpoints)
    assert one is same
