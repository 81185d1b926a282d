"""A damaged file may have closed anything, so that everything is closed until it is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.api.read import read_objects
from meshd.base.json_values import Json, JsonObject
from meshd.config.store import Store
from tests.unit import storing

GOOD = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: NAMESPACE}
spec: {mtls: {mode: MODE}}
"""


def policy(namespace: str, mode: str) -> str:
    return GOOD.replace("NAMESPACE", namespace).replace("MODE", mode)


def put(store: Store, text: str) -> None:
    storing.put(store, [read.object for read in read_objects(text, "a.yaml")])


def damaged(home: Path, content: str) -> Path:
    (home / "state").mkdir()
    path = home / "state" / "applied.json"
    path.write_text(content)
    return path


def opened(home: Path) -> Store:
    return Store(home / "files", home / "state")


NAMELESS = {"kind": "PeerAuthentication", "metadata": {}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"revision": 1, "obj',
        json.dumps({"revision": 1, "objects": [NAMELESS], "addresses": {}}),
    ],
    ids=["empty", "truncated", "an object without a name"],
)
def test_damaged_applied_objects_are_lost_until_a_policy_for_the_mesh_is_applied(
    tmp_path: Path, content: str
) -> None:
    path = damaged(tmp_path, content)
    for store in (opened(tmp_path), opened(tmp_path)):
        assert store.lost == (f"{path}.damaged-1",)
        assert any("workloads take mutual TLS only" in one.message for one in store.findings)
        store.keep_addresses({"a": ("198.19.0.1",)})
        put(store, policy("shop", "PERMISSIVE"))
    assert Path(store.lost[0]).read_text() == content
    put(store, policy("istio-system", "PERMISSIVE"))
    for now in (store, opened(tmp_path)):
        assert now.lost == ()


def test_a_good_copy_that_is_put_back_ends_it(tmp_path: Path) -> None:
    path = damaged(tmp_path, "{")
    assert opened(tmp_path).lost
    path.write_text(json.dumps({"revision": 1, "objects": [], "addresses": {}}))
    assert opened(tmp_path).lost == ()


def test_nothing_is_lost_where_there_was_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path).lost == ()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.yaml").write_text("{")
    assert opened(tmp_path).lost == ()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"], ids=["empty", "truncated", "no text"])
def test_a_damaged_copy_of_a_bad_file_is_lost_until_the_file_is_corrected(
    tmp_path: Path, content: bytes
) -> None:
    kept = tmp_path / "state" / "config.d"
    kept.mkdir(parents=True)
    (kept / "a.yaml").write_bytes(content)
    (tmp_path / "files").mkdir()
    file = tmp_path / "files" / "a.yaml"
    file.write_text("{")
    store = opened(tmp_path)
    assert store.lost == (str(kept / "a.yaml"),)
    file.write_text("{")  # which is as bad
    store.refresh()
    assert store.lost == (str(kept / "a.yaml"),)
    file.write_text(policy("shop", "STRICT"))
    store.refresh()
    assert store.lost == ()


def test_what_was_told_before_is_lost_until_the_server_tells(tmp_path: Path) -> None:
    damaged(tmp_path, "{")
    store = opened(tmp_path)
    store.follow({}, (), ("server-state.damaged-1",))
    assert store.lost == ("server-state.damaged-1",)
    (finding,) = (one for one in store.findings if one.file == "server-state.damaged-1")
    assert "until" not in finding.message
    assert "when the server answers" in finding.message
    store.follow({})
    assert store.lost == ()


def of_kind(kind: str, spec: Json, version: Json = "networking.istio.io/v1") -> Json:
    meta: JsonObject = {"name": "a", "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


@pytest.mark.parametrize(
    ("value", "lost"),
    [
        (of_kind("DestinationRule", {"host": ["a"]}), True),
        (of_kind("DestinationRule", {"host": "not a host"}), True),
        (of_kind("DestinationRule", {"host": "a", "newer": 1}), False),
        (of_kind("VirtualService", {"hosts": [7]}), True),
        (of_kind("VirtualService", {"hosts": 7}), True),
        (of_kind("VirtualService", {"hosts": ["not a host"]}), True),
        (of_kind("VirtualService", []), True),
        (of_kind("VirtualService", {"http": [7]}), False),
        (of_kind("VirtualService", {"hosts": [7, "a.test"]}), False),
        (of_kind("VirtualService", {"hosts": ["a.test"]}, 7), True),
        (of_kind("ServiceEntry", {"hosts": [7]}), True),
        (of_kind("ServiceEntry", {}), True),
        (of_kind("ServiceEntry", {"hosts": [7, "a.test"]}), False),
        (of_kind("Service", [], "v1"), False),
        (of_kind("Service", {"ports": [{"port": 80}, {"port": "x"}]}, "v1"), True),
        (of_kind("Service", {"ports": [{"port": 80}, 7]}, "v1"), True),
        (of_kind("Service", {"ports": [{"port": 80, "newer": 1}]}, "v1"), False),
        (of_kind("ServiceEntry", {"hosts": ["a.test"], "ports": [{"number": True}]}), True),
        (of_kind("ServiceEntry", {"hosts": ["a.test"], "ports": 7}), True),
        (of_kind("ServiceEntry", {"hosts": ["a.test"], "ports": [{"number": 99999}]}), False),
        (of_kind("Service", {}, "serving.knative.dev/v1"), False),
        (of_kind("WorkloadEntry", {"address": 7}), True),
        (of_kind("WorkloadEntry", {"address": "198.18.0.300"}), True),
        (of_kind("WorkloadEntry", {"address": "198.18.0.9/32"}), True),
        (of_kind("WorkloadEntry", {"labels": {"app": "db"}}), True),
        (of_kind("WorkloadEntry", {"network": 7}), True),
        (of_kind("WorkloadEntry", []), True),
        (of_kind("WorkloadEntry", {"address": "198.18.0.9", "labels": 7}), False),
        (of_kind("WorkloadEntry", {"address": "vm.example.com", "newer": 1}), False),
        (of_kind("WorkloadEntry", {"address": "unix:///run/db", "newer": 1}), False),
        (of_kind("WorkloadEntry", {"network": "far", "newer": 1}), False),
    ],
    ids=str,
)
def test_an_object_that_does_not_say_which_hosts_ports_or_address_it_has_is_lost(
    tmp_path: Path, value: Json, *, lost: bool
) -> None:
    path = damaged(tmp_path, json.dumps({"revision": 1, "objects": [value], "addresses": {}}))
    found = opened(tmp_path)
    assert found.lost == ((f"{path}.damaged-1",) if lost else ())
    assert not (lost and found.closed)
