"""What nodes are told of Secrets that no message can hold; of all else, see the tests of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd import wire
from meshd.base.attempts import Attempts
from meshd.base.json_values import JsonObject
from meshd.fleet.server.packing import Packing
from meshd.fleet.server.private import SECRET
from meshd.model.workload import Workload


def secret(name: str, created: str) -> JsonObject:
    metadata: JsonObject = {"name": name, "namespace": "edge", "creationTimestamp": created}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}}


GATEWAY: JsonObject = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "gate", "namespace": "edge"},
    "spec": {
        "selector": {"app": "gate"},
        "servers": [{"tls": {"mode": "SIMPLE", "credentialName": "cert"}}],
    },
}
NEEDS_IT = Workload(
    uid="g", name="g", namespace="edge", netns="", node="far", labels={"app": "gate"}
)
OTHER = Workload(uid="o", name="o", namespace="edge", netns="", node="near")


@pytest.mark.parametrize("name", ["cert", "unneeded"])
def test_a_node_keeps_a_secret_that_it_needs_and_cannot_be_told_of(
    tmp_path: Path, name: str
) -> None:
    packing = Packing(Attempts(tmp_path / "attempts.json"), "root")
    packed = packing.pack(wire.Shared((NEEDS_IT, OTHER), (GATEWAY, secret(name, "never"))))
    kept = {node: own.untold for node, own in packed.private.items()}
    assert kept == ({"far": {(SECRET, "edge/cert")}} if name == "cert" else {})
    assert packed.shared.untold == frozenset()
    assert len(packed.problems) == 1
