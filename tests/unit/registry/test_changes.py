"""A registry that goes on from its last snapshot gives what a new one gives."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.base import Object
from meshd.api.read import read_objects
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import HostService, Workload
from meshd.registry.registry import Registry
from meshd.registry.selection import Backend
from tests.unit.numbered import workload

TEXT = """
apiVersion: v1
kind: Namespace
metadata: {name: back, labels: {istio.io/dataplane-mode: none}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: front}
spec: {selector: {app: web}, ports: [{port: 80, name: http, targetPort: admin}]}
---
apiVersion: v1
kind: Service
metadata: {name: newest, namespace: front}
spec: {selector: {app: web, version: v2}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: back}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: front}
spec: {type: ExternalName, externalName: db.back.svc.cluster.local, ports: [{port: 5432}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: more, namespace: front}
spec:
  hosts: [web.front.svc.cluster.local, more.example.com]
  resolution: STATIC
  workloadSelector: {labels: {version: v1}}
  ports: [{number: 80, name: http}, {number: 81, name: tcp}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rival, namespace: back}
spec:
  hosts: [more.example.com]
  resolution: STATIC
  workloadSelector: {labels: {app: db}}
  ports: [{number: 90, name: tcp}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: front}
spec: {hosts: [out.example.com], resolution: DNS, ports: [{number: 443, name: tls}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w2, namespace: back}
spec: {address: 198.18.7.1, labels: {app: db}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entry, namespace: edge}
spec:
  selector: {app: web}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""
OBJECTS: list[Object] = [read.object for read in read_objects(TEXT, "test.yaml")]


OWN = [workload(1, "front", app="web", version="v1", istio="web"), workload(2, "back", app="db")]
OTHERS = [
    msgspec.structs.replace(one, node="there")
    for one in (
        workload(11, "front", app="web", version="v2", istio="web"),
        workload(12, "back", app="db"),
        workload(13, "front", version="v1"),
    )
]
WORKLOADS = {one.uid: one for one in (*OWN, *OTHERS)}
CHANGES: dict[str, dict[str, Any]] = {
    "address": {"addresses": ("198.18.9.99",)},
    "no address": {"addresses": ()},
    "labels": {"labels": {"app": "web", "version": "v2"}},
    "account": {"service_account": "other"},
    "enrolled": {"enrolled": False},
    "host": {"host": HostService(cgroup="system.slice/a"), "netns": ""},
}


class Mesh(msgspec.Struct):
    """What may change."""

    objects: dict[int, Object] = msgspec.field(default_factory=lambda: dict(enumerate(OBJECTS)))
    workloads: dict[str, Workload] = msgspec.field(default_factory=lambda: dict(WORKLOADS))
    options: MeshOptions = MeshOptions(node="here")
    addresses: dict[str, tuple[str, ...]] = {}

    def edit(self, what: str, value: Any) -> None:
        if what == "object":
            if self.objects.pop(value, None) is None:
                self.objects[value] = msgspec.structs.replace(OBJECTS[value])
        elif what == "presence":
            if self.workloads.pop(value, None) is None:
                self.workloads[value] = WORKLOADS[value]
        elif what == "options":
            self.options = msgspec.structs.replace(self.options, locality=value)
        elif what == "virtual address":
            self.addresses = {"web.front.svc.cluster.local": (value,)}
        elif known := self.workloads.get(value):
            change = CHANGES.get(what, {"ready": not known.ready})
            self.workloads[value] = msgspec.structs.replace(known, **change)

    def taken_by(self, registry: Registry) -> Snapshot:
        own = {one.uid for one in OWN}
        return registry.snapshot(
            [one for _, one in sorted(self.objects.items())],
            [one for uid, one in self.workloads.items() if uid in own],
            self.options,
            self.addresses,
            elsewhere=[one for uid, one in self.workloads.items() if uid not in own],
        )


UIDS = st.sampled_from(sorted(WORKLOADS))
EDITS = st.one_of(
    st.tuples(st.just("ready"), UIDS),
    st.tuples(st.sampled_from(["presence", *CHANGES]), UIDS),
    st.tuples(st.just("object"), st.integers(0, len(OBJECTS) - 1)),
    st.tuples(st.just("options"), st.sampled_from(["", "r/z/s"])),
    st.tuples(st.just("virtual address"), st.sampled_from(["198.18.1.1", "198.18.1.2"])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EDITS, max_size=12))
def test_after_each_edit_the_snapshot_is_that_of_a_new_registry(
    edits: list[tuple[str, Any]],
) -> None:
    mesh, registry = Mesh(), Registry()
    mesh.taken_by(registry)
    for edit in edits:
        mesh.edit(*edit)
        again, fresh = mesh.taken_by(registry), mesh.taken_by(Registry())
        assert msgspec.json.encode(again) == msgspec.json.encode(fresh), edit


def many(services: int) -> Mesh:
    text = "".join(
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: front}}\n"
        f"spec: {{selector: {{app: s{number}}}, ports: [{{port: 80}}]}}\n"
        for number in range(services)
    )
    read = [one.object for one in read_objects(text, "many.yaml")]
    pods = [workload(number, "front", app=f"s{number}") for number in range(services)]
    return Mesh(dict(enumerate(read)), {one.uid: one for one in pods})


@pytest.mark.parametrize(
    ("what", "value", "made"),
    [
        ("ready", "front.w7", 1),
        ("address", "front.w7", 1),
        ("account", "front.w7", 1),
        ("object", 7, 0),
    ],
)
def test_a_change_makes_only_the_records_of_services_that_it_touches(
    what: str, value: Any, made: int
) -> None:
    mesh, registry = many(50), Registry()
    before = mesh.taken_by(registry)
    count = registry.made
    mesh.edit(what, value)
    after = mesh.taken_by(registry)
    assert registry.made - count == made
    changed = [host for host, one in before.services.items() if after.services.get(host) is not one]
    assert changed == ["s7.front.svc.cluster.local"]


def test_the_start_and_the_end_of_a_workload_make_the_records_of_its_service_only() -> None:
    mesh, registry = many(50), Registry()
    mesh.taken_by(registry)
    gone = mesh.workloads.pop("front.w7")
    count = registry.made
    mesh.taken_by(registry)
    assert registry.made - count == 1
    mesh.workloads["front.w7"] = gone
    mesh.taken_by(registry)
    assert registry.made - count == 2


@pytest.mark.parametrize("uid", ["front.w7", "there/front.w7"])
def test_a_workload_that_comes_or_goes_makes_no_other_backend(
    uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, registry, made = many(50), Registry(), list[str]()
    make = Backend.of_workload

    def counted(workload: Workload, *args: Any, **values: Any) -> Backend:
        made.append(workload.uid)
        return make(workload, *args, **values)

    monkeypatch.setattr(Backend, "of_workload", counted)
    mesh.workloads |= {
        f"there/{one.uid}": msgspec.structs.replace(one, uid=f"there/{one.uid}")
        for one in mesh.workloads.values()
    }
    before = mesh.taken_by(registry)
    gone = mesh.workloads.pop(uid)
    made.clear()
    mesh.taken_by(registry)
    assert made == []
    mesh.workloads[uid] = gone
    after = mesh.taken_by(registry)
    assert made == [uid]
    assert after.services == before.services


@pytest.mark.parametrize("node", ["", "there"])
def test_nothing_stays_of_a_workload_that_is_gone(node: str) -> None:
    mesh, registry = Mesh(), Registry()
    known = WORKLOADS["front.w11" if node else "front.w1"]
    mesh.taken_by(registry)
    mesh.workloads[known.uid] = msgspec.structs.replace(known, service_account="short-lived")
    assert ("front", "short-lived") in mesh.taken_by(registry).gateway_accounts
    del mesh.workloads[known.uid]
    mesh.taken_by(registry)
    assert b"short-lived" not in pickle.dumps(registry)


def test_nothing_is_made_when_nothing_has_changed() -> None:
    mesh, registry = many(50), Registry()
    before, count = mesh.taken_by(registry), registry.made
    after = mesh.taken_by(registry)
    assert registry.made == count
    assert after.services is before.services
    assert after.virtual_services is before.virtual_services
