"""Which ports a gateway's workload opens."""

from __future__ import annotations

import pytest

from meshd.api.read import read_objects
from meshd.compile.gateway.ports import gateway_ports
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Workload
from meshd.registry.registry import build_snapshot

GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: tenant}
spec:
  selector: {role: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 15006, name: taken, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 15102, name: of-the-host, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 90, name: mapped, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: default}
spec: {selector: {role: edge}, ports: [{port: 90, targetPort: 15001}]}
"""


def workload(host: HostService | None = None) -> Workload:
    return Workload(
        uid="default.edge",
        name="edge",
        namespace="default",
        netns="" if host else "/run/netns/edge",
        labels={"role": "edge", "meshd.io/gateway": ""},
        addresses=("198.18.0.1",),
        host=host,
    )


@pytest.mark.parametrize(
    ("host", "opened"), [(None, [80, 15102]), (HostService(cgroup="edge.slice"), [80])]
)
def test_no_gateway_takes_a_port_of_the_proxies(
    host: HostService | None, opened: list[int]
) -> None:
    """The workload's own traffic would not reach them, nor that of other services of its host."""
    objects = [read.object for read in read_objects(GATEWAY, "test.yaml")]
    snapshot = build_snapshot(objects, [workload(host)], MeshOptions(), {})

    assert list(gateway_ports(snapshot)["default.edge"].ports) == opened
