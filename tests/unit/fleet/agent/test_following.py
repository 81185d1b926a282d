"""A store that follows another: what is there, and what may be applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd import wire
from meshd.api.base import Object
from meshd.api.write import from_json, to_json
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.config.store import Store
from meshd.fleet.agent import following
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit import storing

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def parsed(name: str = "web") -> Object:
    value: JsonObject = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    return from_json(value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "config.d", tmp_path / "lib")
    storing.put(made, [parsed("applied-before")])
    found = parsed()
    made.follow({found.key: found})
    return made


def apply(store: Store, text: str, *, delete: bool = False) -> wire.Message:
    request = wire.Apply((("-", text),), "shop", delete=delete)
    return following.answer(store, request, "server:15012")


def test_objects_applied_here_are_no_longer_in_force(store: Store) -> None:
    assert [key.name for key in store.objects] == ["web"]


def test_following_tells_subscribers_of_changes_only(store: Store) -> None:
    told: list[int] = []
    store.subscribe(lambda: told.append(store.revision))
    same = parsed()
    store.follow({same.key: same})
    assert not told
    store.follow({})
    assert len(told) == 1


def test_an_object_in_force_already_may_be_applied(store: Store) -> None:
    answer = apply(store, SERVICE)
    assert isinstance(answer, wire.Changed)
    assert [change.result for change in answer.changes] == ["unchanged"]


def test_a_service_may_be_applied_with_the_address_that_the_mesh_has_chosen(store: Store) -> None:
    record = ServiceRecord(
        host="web.shop.svc.cluster.local", namespace="shop", name="web", addresses=("198.19.0.7",)
    )
    for address, is_same in (("198.19.0.7", True), ("198.19.0.8", False)):
        text = SERVICE.replace("spec: {", f"spec: {{clusterIP: {address}, ")
        request = wire.Apply((("-", text),), "shop")
        if is_same:
            answer = following.answer(store, request, "server:15012", [record])
            assert isinstance(answer, wire.Changed)
        else:
            with pytest.raises(InvalidInputError, match="run meshctl there"):
                following.answer(store, request, "server:15012", [record])


@pytest.mark.parametrize(
    "text", [SERVICE.replace("8080", "9090"), SERVICE.replace("name: web", "name: other")]
)
def test_anything_else_is_refused_with_the_servers_name(store: Store, text: str) -> None:
    with pytest.raises(InvalidInputError, match="comes from server:15012; run meshctl there"):
        apply(store, text)
    with pytest.raises(InvalidInputError, match="server:15012"):
        apply(store, SERVICE, delete=True)
    with pytest.raises(InvalidInputError, match="server:15012"):
        following.answer(
            store, wire.DeleteNamed((wire.Named("svc", ("web",)),), "shop"), "server:15012"
        )


def test_an_invalid_object_is_rejected_as_apply_rejects_it(store: Store) -> None:
    assert isinstance(apply(store, "kind: Service\n"), wire.Rejected)


def test_objects_are_equal_after_the_way_over_json() -> None:
    assert from_json(to_json(parsed())) == parsed()


def test_workloads_elsewhere_serve_but_are_none_of_this_node() -> None:
    far = Workload(
        uid="node/shop.far",
        name="far",
        namespace="shop",
        netns="",
        labels={"app": "web"},
        addresses=("198.18.1.1",),
        node="node",
    )
    snapshot = build_snapshot([parsed()], (), MeshOptions(), {}, elsewhere=(far,))
    (endpoint,) = snapshot.services["web.shop.svc.cluster.local"].endpoints
    assert (endpoint.address, endpoint.port, endpoint.mutual_tls) == ("198.18.1.1", 8080, True)
    assert not snapshot.workloads
