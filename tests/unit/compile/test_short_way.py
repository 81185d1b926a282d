"""What is compiled on from before is what is compiled anew, also with the short way."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from meshd.api.read import read_objects
from meshd.compile.compiled import Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

_MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 198.19.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
_EVERY = ("default.client", "default.other", "default.web")
_ASSIGNED = "outbound|80||web.default.svc.cluster.local;local;http1"


def _workload(name: str, number: int) -> Workload:
    return Workload(
        uid=f"default.{name}",
        name=name,
        namespace="default",
        netns=f"/pins/{name}",
        service_account=name,
        labels={"app": "web" if name == "other" else name},
        addresses=(f"198.18.0.{number}",),
    )


def _snapshot(*destinations: str, on: bool = True, **changed: object) -> Snapshot:
    workloads = [_workload("client", 1), _workload("web", 2), _workload("other", 3)]
    workloads[1] = msgspec.structs.replace(workloads[1], **changed)
    objects = [read.object for read in read_objects(_MANIFEST, "test.yaml")]
    found = build_snapshot(objects, workloads, MeshOptions(short_way=on), {})
    callers = tuple(
        f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("client", "other", "web")
    )
    return msgspec.structs.replace(found, short_way=ShortWay(callers, destinations))


def _compiled(compiler: Compiler, snapshot: Snapshot) -> dict[Kind, Mapping[str, object]]:
    """All but routes, which know nothing of the short way."""
    made = as_messages(compiler.compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]
    return {kind: dict(found) for kind, found in made.items() if kind is not Kind.ROUTE}


def _inside(snapshot: Snapshot) -> list[str]:
    """The endpoints that are reached by the short way."""
    compiled = as_messages(Compiler().compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]
    assigned = compiled[Kind.ENDPOINT][_ASSIGNED]
    found = (place.endpoint.address for group in assigned.endpoints for place in group.lb_endpoints)
    return sorted(
        one.envoy_internal_address.endpoint_id.partition(";")[0]
        for one in found
        if one.HasField("envoy_internal_address")
    )


@pytest.mark.parametrize(
    "after",
    [
        _snapshot("default.web"),
        _snapshot(),
        _snapshot(*_EVERY, addresses=("198.18.0.9",)),
        _snapshot(*_EVERY, netns="/pins/new"),
        _snapshot(*_EVERY, service_account="new"),
        _snapshot(*_EVERY, ready=False),
        _snapshot(*_EVERY, on=False),
        msgspec.structs.replace(_snapshot(*_EVERY), short_way=ShortWay((), _EVERY)),
    ],
    ids=["one", "none", "address", "netns", "account", "ready", "off", "no callers"],
)
def test_what_changes_is_compiled_as_anew(after: Snapshot) -> None:
    compiler = Compiler()
    for snapshot in (_snapshot(*_EVERY), after, _snapshot(*_EVERY)):
        assert _compiled(compiler, snapshot) == _compiled(Compiler(), snapshot)


def test_endpoints_are_inside_as_far_as_the_way_is_open() -> None:
    assert _inside(_snapshot("default.web")) == ["198.18.0.2:8080"]
    assert _inside(_snapshot(*_EVERY)) == ["198.18.0.2:8080", "198.18.0.3:8080"]
    assert _inside(_snapshot()) == []


def test_a_workload_that_is_served_no_more_is_not_reached_inside() -> None:
    compiler, snapshot = Compiler(), _snapshot(*_EVERY)
    _compiled(compiler, snapshot)
    workloads = {uid: one for uid, one in snapshot.workloads.items() if uid != "default.web"}
    left = msgspec.structs.replace(snapshot, workloads=workloads)
    assert _compiled(compiler, left) == _compiled(Compiler(), left)
