"""Who shares a view of the mesh."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import decode_scalar, exported
from meshd.api.networking import DestinationRule, VirtualService
from meshd.api.protocol import Protocol
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope, scopes
from meshd.compile.visibility.view import View
from meshd.model.service import Port, ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


def virtual_service(namespace: str, **spec: Any) -> VirtualService:
    return msgspec.convert(
        {"metadata": {"name": "vs", "namespace": namespace}, "spec": {"hosts": ["a"], **spec}},
        VirtualService,
        dec_hook=decode_scalar,
    )


def by_source_labels(namespace: str, labels: dict[str, str], **spec: Any) -> VirtualService:
    route = {"match": [{"sourceLabels": labels}], "route": [{"destination": {"host": "a"}}]}
    return virtual_service(namespace, http=[route], **spec)


def workload(namespace: str, name: str, **labels: str) -> Workload:
    uid = f"{namespace}.{name}"
    return Workload(uid=uid, name=name, namespace=namespace, netns="/x", labels=labels)


def snapshot(*objects: VirtualService | DestinationRule, workloads: list[Workload]) -> Snapshot:
    return Snapshot(
        virtual_services=tuple(item for item in objects if isinstance(item, VirtualService)),
        destination_rules=tuple(item for item in objects if isinstance(item, DestinationRule)),
        workloads={item.uid: item for item in workloads},
    )


def test_workloads_of_a_namespace_share_one_scope_when_no_rule_tells_them_apart() -> None:
    found = scopes(
        snapshot(workloads=[workload("a", "x", app="x"), workload("a", "y"), workload("b", "x")])
    )

    assert found == {"a.x": Scope("a"), "a.y": Scope("a"), "b.x": Scope("b")}
    assert found["a.x"].name == "a"


def test_source_labels_split_a_namespace_by_who_has_them() -> None:
    rule = by_source_labels("a", {"app": "x", "tier": "web"})
    found = scopes(
        snapshot(
            rule,
            workloads=[
                workload("a", "x", app="x", tier="web", other="1"),
                workload("a", "same", app="x", tier="web", other="2"),
                workload("a", "half", app="x"),
                workload("a", "none", app="y"),
            ],
        )
    )

    assert found["a.x"] == found["a.same"]
    assert found["a.x"].has({"app": "x", "tier": "web"})
    assert not found["a.half"].has({"app": "x", "tier": "web"})
    assert found["a.none"] == Scope("a")
    assert len({scope.name for scope in found.values()}) == 3
    assert found["a.x"].name.startswith("a~")


def test_source_labels_matter_only_where_the_rule_is_seen() -> None:
    rule = by_source_labels("a", {"app": "x"}, exportTo=["."])

    assert scopes(snapshot(rule, workloads=[workload("b", "x", app="x")])) == {"b.x": Scope("b")}


def test_source_labels_of_a_match_for_another_namespace_do_not_matter() -> None:
    match = {"sourceLabels": {"app": "x"}, "sourceNamespace": "b"}
    rule = virtual_service(
        "a", http=[{"match": [match], "route": [{"destination": {"host": "a"}}]}]
    )
    found = scopes(
        snapshot(rule, workloads=[workload("a", "x", app="x"), workload("b", "x", app="x")])
    )

    assert found["a.x"] == Scope("a")
    assert found["b.x"].labels == (("app", "x"),)


def test_workload_selector_of_a_destination_rule_splits_its_namespace() -> None:
    rule = msgspec.convert(
        {
            "metadata": {"name": "dr", "namespace": "a"},
            "spec": {"host": "x", "workloadSelector": {"matchLabels": {"app": "x"}}},
        },
        DestinationRule,
    )
    found = scopes(snapshot(rule, workloads=[workload("a", "x", app="x"), workload("a", "y")]))

    assert found["a.x"] != found["a.y"]


@given(st.integers(1, 40), st.integers(1, 4))
def test_scopes_grow_with_namespaces_and_not_with_workloads(count: int, namespaces: int) -> None:
    workloads = [workload(f"n{number % namespaces}", str(number)) for number in range(count)]

    assert len(set(scopes(snapshot(workloads=workloads)).values())) <= namespaces


def test_export_to_says_which_namespaces_see_a_thing() -> None:
    assert exported((), "a", "b")
    assert exported(("*",), "a", "b")
    assert exported((".",), "a", "a")
    assert not exported((".",), "a", "b")
    assert exported((".", "b"), "a", "b")
    assert not exported(("~",), "a", "a")


def test_view_has_only_what_is_exported_to_its_namespace() -> None:
    port = Port(80, "http", Protocol.HTTP)
    services = {
        f"{name}.a.svc.cluster.local": ServiceRecord(
            host=f"{name}.a.svc.cluster.local", namespace="a", ports=(port,), export_to=export_to
        )
        for name, export_to in {"open": (), "own": (".",), "given": ("b",)}.items()
    }
    hidden = virtual_service("a", exportTo=["."])
    bound = virtual_service("a", gateways=["edge"])
    index = MeshIndex.of(
        Snapshot(services=services, virtual_services=(hidden, bound, virtual_service("b")))
    )
    view = View.of(index, Scope("b"))

    assert [host.partition(".")[0] for host in view.services] == ["open", "given"]
    assert [routing.service for routing in view.routings] == [bound, virtual_service("b")]
    assert list(view.mesh_routings.hosts()) == ["a.b.svc.cluster.local"]
    assert view.cluster("own.a.svc.cluster.local", 80).variant == "hidden"
    assert view.cluster("own.a.svc.cluster.local", 80) != View.of(index, Scope("a")).cluster(
        "own.a.svc.cluster.local", 80
    )
