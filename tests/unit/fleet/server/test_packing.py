"""What nodes are told of Secrets that no message can hold; of all else, see the tests of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd import wire
from meshd.base.attempts import Attempts
from meshd.base.json_values import JsonObject
from meshd.fleet.server import mcp
from meshd.fleet.server.packing import Packed, Packing
from meshd.fleet.server.private import SECRET
from meshd.model.workload import Workload
from meshd.xds.resources import Resource


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


def test_a_node_is_told_no_secret_of_a_gateway_that_may_not_select_its_workloads(
    tmp_path: Path,
) -> None:
    elsewhere: JsonObject = {**GATEWAY, "metadata": {"name": "gate", "namespace": "thief"}}
    told = wire.Shared((NEEDS_IT,), (elsewhere, secret("cert", "2026-01-01T00:00:00Z")))
    attempts = Attempts(tmp_path / "attempts.json")
    assert Packing(attempts, "root", "any-namespace").pack(told).private.keys() == {"far"}
    for packing in (Packing(attempts, "root"), Packing(attempts, "root", "own-namespace")):
        assert packing.pack(told).private == {}


class Killed(BaseException):
    """In place of the end of the process."""


def test_an_object_of_which_every_form_kills_costs_few_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = mcp.encode

    def deadly(value: JsonObject) -> Resource:
        if mcp.resource_name(value) == "edge/killer":
            raise Killed
        return encode(value)

    monkeypatch.setattr(mcp, "encode", deadly)
    killer: JsonObject = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "killer", "namespace": "edge"},
        "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]},
    }
    told = wire.Shared((), (GATEWAY, killer))

    def packed() -> Packed | None:
        try:
            return Packing(Attempts(tmp_path / "attempts.json"), "root").pack(told)
        except Killed:
            return None

    lives = [packed() for _ in range(9)]
    last = lives[-1]
    assert last
    assert lives.count(None) == 7  # one of all, three of the object, one of each form
    (problem,) = last.problems
    assert "VirtualService edge/killer, which is left out" in problem
    assert last.shared.of_type(mcp.url_of(GATEWAY))
