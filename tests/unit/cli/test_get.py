"""get: kubectl's habits, and the forms in which objects are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from meshd import wire
from meshd.base.json_values import JsonObject
from meshd.cli.selectors import is_selected, parse_selector

VIRTUAL_SERVICE: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "reviews", "namespace": "default", "labels": {"team": "books"}},
    "spec": {"hosts": ["reviews", "reviews.example"], "gateways": ["mesh"]},
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"clusterIP": "198.19.0.1", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
}
STORED = {"VirtualService": VIRTUAL_SERVICE, "Service": SERVICE}


@pytest.fixture(autouse=True)
def store(daemon: Any) -> None:
    def answer(request: wire.AnyMessage) -> wire.Message:
        assert isinstance(request, wire.Get)
        found = STORED.get(request.kind)
        if request.name and (not found or found["metadata"]["name"] != request.name):
            return wire.Failed(f"{request.kind} {request.namespace}/{request.name} not found")
        return wire.Objects((found,) if found else ())

    daemon.answer = answer


def test_a_table_has_the_kinds_own_columns(meshctl: Any) -> None:
    result = meshctl("get", "vs")
    assert result.code == 0
    assert [line.split() for line in result.lines] == [
        ["NAME", "GATEWAYS", "HOSTS", "AGE"],
        ["reviews", "mesh", "reviews,reviews.example", "-"],
    ]


def test_several_kinds_are_several_tables(meshctl: Any) -> None:
    result = meshctl("get", "vs,svc")
    assert result.lines[1].startswith("virtualservice.networking.istio.io/reviews")
    assert result.lines[2] == ""
    assert result.lines[4].split()[:5] == [
        "service/web",
        "ClusterIP",
        "198.19.0.1",
        "-",
        "80/TCP,53/UDP",
    ]


def test_wide_output_of_get_has_labels(meshctl: Any) -> None:
    assert meshctl("get", "vs", "-o", "wide").lines[1].endswith("team=books")


def test_get_of_all_namespaces_has_a_column_for_them(daemon: Any, meshctl: Any) -> None:
    result = meshctl("get", "vs", "-A")
    assert daemon.asked == [wire.Get("VirtualService", "", "")]
    assert result.lines[0].startswith("NAMESPACE")


@pytest.mark.parametrize("word", ["vs", "VirtualServices", "virtualservice.networking.istio.io"])
def test_kinds_have_many_names(daemon: Any, meshctl: Any, word: str) -> None:
    meshctl("get", word)
    assert daemon.asked == [wire.Get("VirtualService", "", "default")]


def test_a_cluster_wide_kind_is_asked_for_without_a_namespace(daemon: Any, meshctl: Any) -> None:
    meshctl("get", "ns")
    assert daemon.asked == [wire.Get("Namespace", "", "")]


def test_all_asks_for_every_stored_kind(daemon: Any, meshctl: Any) -> None:
    result = meshctl("get", "all", "-o", "name")
    kinds = [request.kind for request in daemon.asked]
    assert {"Namespace", "Service", "VirtualService", "PeerAuthentication"} <= set(kinds)
    assert result.lines == ["service/web", "virtualservice.networking.istio.io/reviews"]


def test_json_is_a_list_of_the_objects(meshctl: Any) -> None:
    assert json.loads(meshctl("get", "vs", "-o", "json").out) == [VIRTUAL_SERVICE]
    assert json.loads(meshctl("get", "dr", "-o", "json").out) == []


def test_jsonpath_is_of_a_list_or_of_the_one_object(meshctl: Any) -> None:
    assert meshctl("get", "vs", "-o", "jsonpath={.items[*].spec.hosts[0]}").out == "reviews"
    assert meshctl("get", "vs/reviews", "-o", "jsonpath={.metadata.name}").out == "reviews"
    assert meshctl("get", "vs", "-o", "jsonpath={.items").code == 2
    assert meshctl("get", "vs", "-o", "xml").code == 2


def test_a_column_of_labels_is_shown_when_asked_for(meshctl: Any) -> None:
    assert meshctl("get", "vs", "--show-labels").lines[1].endswith("team=books")


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"spec": {"type": "LoadBalancer"}}, "<pending>"),
        (
            {
                "spec": {"type": "LoadBalancer"},
                "status": {
                    "loadBalancer": {
                        "ingress": [{"ip": "198.18.0.9", "ports": [{"port": 80}, {"port": 443}]}]
                    }
                },
            },
            "198.18.0.9:80,198.18.0.9:443",
        ),
        ({"spec": {"type": "ExternalName", "externalName": "a.example"}}, "a.example"),
        ({}, "-"),
    ],
)
def test_where_a_service_is_reached_from_outside_is_shown(
    meshctl: Any, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], shown: str
) -> None:
    monkeypatch.setitem(STORED, "Service", SERVICE | more)
    head, row = (line.split() for line in meshctl("get", "svc").lines)
    assert row[head.index("EXTERNAL-IP")] == shown


def test_a_watch_tells_what_changes_and_what_is_deleted(
    daemon: Any, meshctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: dict[str, Any] = VIRTUAL_SERVICE | {"spec": {"hosts": ["other"]}}
    looks = iter([(VIRTUAL_SERVICE,), (VIRTUAL_SERVICE,), (changed,), ()])

    def answer(_: wire.AnyMessage) -> wire.Message:
        return wire.Objects(next(looks))

    def pause(_: float, left: list[int] = [0] * 3) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()

    daemon.answer = answer
    monkeypatch.setattr("meshd.cli.get.time.sleep", pause)
    result = meshctl("get", "vs", "-w")
    assert result.code == 0
    assert [line.split()[0:3:2] for line in result.lines] == [
        ["NAME", "HOSTS"],
        ["reviews", "reviews,reviews.example"],
        ["reviews", "other"],
    ]
    assert result.err == "virtualservice.networking.istio.io/reviews deleted\n"


def test_get_lists_the_objects_that_a_label_selector_chooses(meshctl: Any) -> None:
    assert meshctl("get", "vs,svc", "-l", "team=books", "-o", "name").lines == [
        "virtualservice.networking.istio.io/reviews"
    ]
    assert meshctl("get", "vs", "--selector", "team!=books").lines == []


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("", True),
        ("a=b", True),
        ("a==b,c", True),
        ("a = b , c in (d, e)", True),
        ("c notin (d,e)", False),
        ("c notin (e), !x", True),
        ("x notin (e)", True),
        ("x!=y", True),
        ("a!=b", False),
        ("x", False),
        ("!a", False),
        ("c in (e)", False),
    ],
)
def test_selectors_are_kubernetes_own(selector: str, chosen: bool) -> None:
    found: JsonObject = {"metadata": {"labels": {"a": "b", "c": "d"}}}
    assert is_selected(found, parse_selector(selector)) is chosen


def test_yaml_can_be_applied_again(meshctl: Any) -> None:
    result = meshctl("get", "vs,svc", "-o", "yaml")
    assert list(yaml.safe_load_all(result.out)) == [VIRTUAL_SERVICE, SERVICE]


def test_nothing_found_is_no_failure(meshctl: Any) -> None:
    result = meshctl("get", "dr", "-n", "shop")
    assert (result.code, result.out) == (0, "")
    assert result.err == "nothing found in namespace shop\n"


def test_a_name_that_is_not_there_is_status_1_beside_what_is(meshctl: Any) -> None:
    result = meshctl("get", "vs", "reviews", "missing")
    assert result.code == 1
    assert "reviews" in result.out
    assert result.err == "VirtualService default/missing not found\n"


def test_an_unknown_kind_names_the_nearest(meshctl: Any) -> None:
    assert "did you mean virtualservice" in meshctl("get", "virtualservic").err
