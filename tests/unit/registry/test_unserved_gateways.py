"""Gateways that nobody serves because of a setting are named, and no others."""

from __future__ import annotations

import msgspec
import pytest

from meshd.api.base import ObjectMeta
from meshd.api.gateway.types import Gateway, GatewaySelection, GatewaySpec
from meshd.model.workload import Workload
from meshd.registry.unserved_gateways import unserved


def gateway(namespace: str, **selector: str) -> Gateway:
    spec = GatewaySpec(selector=selector, servers=())
    return Gateway(metadata=ObjectMeta(name="edge", namespace=namespace), spec=spec)


def workload(namespace: str, app: str) -> Workload:
    uid = f"{namespace}.{app}"
    return Workload(uid=uid, name=app, namespace=namespace, netns="/n", labels={"app": app})


EDGE = workload("edges", "edge")
THERE = (EDGE, workload("shop", "web"))


@pytest.mark.parametrize(
    ("found", "selection", "count"),
    [
        (gateway("shop", app="edge"), "own-namespace", 1),
        (gateway("shop", app="edge"), "any-namespace", 0),
        (gateway("edges", app="edge"), "own-namespace", 0),
        (gateway("shop", app="nobody"), "own-namespace", 0),
        (gateway("shop"), "own-namespace", 0),
        (gateway("shop", app="edge"), "declared-gateways", 1),
        (gateway("edges", app="edge"), "declared-gateways", 0),
    ],
)
def test_workloads_that_may_not_serve_a_gateway_are_named(
    found: Gateway, selection: GatewaySelection, count: int
) -> None:
    said = tuple(unserved((found,), THERE, selection))
    assert len(said) == count
    for line in said:
        assert line.startswith("Gateway shop/edge is served by nobody: ")
        assert "edges" in line


def test_a_gateway_that_a_declared_one_of_another_namespace_serves_is_not_named() -> None:
    declared = msgspec.structs.replace(EDGE, labels={**EDGE.labels, "meshd.io/gateway": "true"})
    found = gateway("shop", app="edge")
    assert not tuple(unserved((found,), (declared, EDGE), "declared-gateways"))
    assert tuple(unserved((found,), (declared, EDGE), "own-namespace"))
