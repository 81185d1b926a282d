"""What is compiled on from before is what is compiled anew, also with the short way."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2

from meshd.api.read import read_objects
from meshd.compile.compiled import Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from meshd.workloads.record import elsewhere
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
NOTHING = endpoint_pb2.ClusterLoadAssignment()


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


def _snapshot(
    *destinations: str,
    on: bool = True,
    more: str = "",
    elsewhere: tuple[Workload, ...] = (),
    **changed: object,
) -> Snapshot:
    workloads = [_workload("client", 1), _workload("web", 2), _workload("other", 3)]
    workloads[1] = msgspec.structs.replace(workloads[1], **changed)
    objects = [read.object for read in read_objects(_MANIFEST + more, "test.yaml")]
    options = MeshOptions(short_way=on)
    found = build_snapshot(objects, workloads, options, {}, elsewhere=elsewhere)
    callers = tuple(
        f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("client", "other", "web")
    )
    return msgspec.structs.replace(found, short_way=ShortWay(callers, destinations))


def _compiled(compiler: Compiler, snapshot: Snapshot) -> dict[Kind, Mapping[str, object]]:
    """All but routes, which know nothing of the short way."""
    made = as_messages(compiler.compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]
    return {kind: dict(found) for kind, found in made.items() if kind is not Kind.ROUTE}


def _inside(snapshot: Snapshot, name: str = _ASSIGNED) -> list[str]:
    """The endpoints that are reached by the short way."""
    compiled = as_messages(Compiler().compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]
    assigned = compiled[Kind.ENDPOINT].get(name, NOTHING)
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


_OUTSIDE = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: default}
spec:
  hosts: [out.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: web}}
  ports: [{number: 80, name: http, protocol: HTTP}]
"""


def test_a_workload_that_is_declared_to_be_outside_of_the_mesh_is_not_reached_inside() -> None:
    """Clients speak plaintext to it, which its policy may refuse."""
    snapshot = _snapshot(*_EVERY, more=_OUTSIDE)
    assert _inside(snapshot, "outbound|80||out.test;local;http1") == []
    assert _inside(snapshot) != []


def test_only_services_with_such_endpoints_have_clusters_for_them() -> None:
    clusters = [
        _compiled(Compiler(), _snapshot(*open_to))[Kind.CLUSTER] for open_to in ((), _EVERY)
    ]
    without, with_them = (
        str(one["outbound|80||web.default.svc.cluster.local"]) for one in clusters
    )
    assert "header_mutation" not in without
    assert "header_mutation" in with_them


_ENTRY = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: claim, namespace: default}
spec: {address: 198.18.0.1, labels: {app: web}, serviceAccount: client}
"""


@pytest.mark.parametrize("account", ["client", "web"])
def test_an_entry_that_claims_a_workloads_address_is_not_reached_inside(account: str) -> None:
    """Nor is one that names the account of that workload: nothing says that it is this one."""
    more = _ENTRY.replace("serviceAccount: client", f"serviceAccount: {account}")
    assert _inside(_snapshot(*_EVERY, more=more)) == ["198.18.0.2:8080", "198.18.0.3:8080"]


@pytest.mark.parametrize("name", ["client", "web"])
@pytest.mark.parametrize("node", ["", "there"])
def test_a_workload_of_another_node_is_not_reached_inside_whatever_it_says(
    name: str, node: str
) -> None:
    """A joined node may report the uid, the address and the account of a workload of this one."""
    claimed = _workload(name, {"client": 1, "web": 2}[name])
    told = elsewhere(msgspec.structs.replace(claimed, node=node, labels={"app": "web"}))
    found = _inside(_snapshot("default.web", "default.client", elsewhere=(told,)))
    assert found == ["198.18.0.2:8080"]


def test_a_workload_that_is_served_no_more_is_not_reached_inside() -> None:
    compiler, snapshot = Compiler(), _snapshot(*_EVERY)
    _compiled(compiler, snapshot)
    workloads = {uid: one for uid, one in snapshot.workloads.items() if uid != "default.web"}
    left = msgspec.structs.replace(snapshot, workloads=workloads)
    assert _compiled(compiler, left) == _compiled(Compiler(), left)
