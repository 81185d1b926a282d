"""What is spoken with an application, by the Services in front of it."""

from __future__ import annotations

import pytest

from meshd.api.read import read_objects
from meshd.compile.policy.served import served_ports
from meshd.compile.visibility.index import MeshIndex
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot

POD = Workload(
    uid="default.web",
    name="web",
    namespace="default",
    netns="/run/netns/web",
    labels={"app": "web"},
    addresses=("198.18.0.1",),
)


def spoken(*ports: str, more: str = "") -> dict[int, str]:
    """By the pod's port, with a Service for each of these."""
    services = "".join(
        f"""
---
apiVersion: v1
kind: Service
metadata: {{name: web{index}}}
spec: {{selector: {{app: web}}, ports: [{port}]}}
"""
        for index, port in enumerate(ports)
    )
    objects = [read.object for read in read_objects(services + more, "test.yaml")]
    snapshot = build_snapshot(objects, [POD], MeshOptions(), {})
    return dict(served_ports(snapshot.services, MeshIndex.of(snapshot).rules)[POD.uid])


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("http",), "http"),
        (("http2",), "http2"),
        (("grpc",), "http2"),
        (("tcp",), "opaque"),
        (("https",), "opaque"),
        (("any",), "sniffed"),
        (("http", "http-again"), "http"),
        (("http", "grpc"), "either"),
        (("http", "tcp"), "sniffed"),
        (("grpc", "any"), "sniffed"),
        (("tls", "mongo"), "opaque"),
    ],
)
def test_services_of_one_port_that_differ_leave_it_to_be_found_out(
    names: tuple[str, ...], wanted: str
) -> None:
    ports = [
        f"{{name: {name}, port: {81 + index}, targetPort: 80}}" for index, name in enumerate(names)
    ]
    assert spoken(*ports) == {80: wanted}


@pytest.mark.parametrize(
    ("namespace", "wanted"), [("default", "either"), ("istio-system", "either"), ("other", "http")]
)
def test_a_rule_of_the_services_side_asks_for_the_clients_protocol(
    namespace: str, wanted: str
) -> None:
    rule = f"""
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: {namespace}}}
spec:
  host: web0.default.svc.cluster.local
  trafficPolicy: {{connectionPool: {{http: {{useClientProtocol: true}}}}}}
"""
    assert spoken("{name: http, port: 80}", more=rule) == {80: wanted}


def test_an_upgrade_is_between_the_proxies_only() -> None:
    rule = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web0, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
"""
    assert spoken("{name: http, port: 80}", more=rule) == {80: "http"}


def test_udp_is_nothing_that_is_served_here() -> None:
    assert spoken("{name: http, port: 80}", "{name: dns, port: 53, protocol: UDP}") == {80: "http"}
