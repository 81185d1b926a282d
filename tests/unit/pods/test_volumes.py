"""Volumes of manifests → files, and where containers find them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshd.api.read import RejectedError
from meshd.model.pod import MountPlan, VolumePlan
from meshd.pods.addresses import Subnet
from meshd.pods.client import read
from meshd.pods.images import Image, ImageMap
from meshd.pods.plan import Bed, Plan, make_plan

DATA = """
apiVersion: v1
kind: ConfigMap
metadata: {name: site, namespace: shop}
data: {index.html: hello, robots.txt: none}
---
apiVersion: v1
kind: Secret
metadata: {name: tls, namespace: shop}
stringData: {key.pem: key}
---
"""


def plan(*volumes: dict[str, Any], mounts: list[dict[str, Any]] | None = None) -> Plan:
    named = [{"name": f"v{index}"} | volume for index, volume in enumerate(volumes)]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "b": "1"}},
        "spec": {
            "containers": [{"name": "web", "image": "web", "volumeMounts": mounts or []}],
            "volumes": named,
        },
    }
    images = ImageMap({"web": Image(command=("serve",))}, "map")
    bed = Bed(Subnet.parse("198.18.7.0/24"), images, "n1", {})
    return make_plan(read((("web.yaml", DATA + yaml.safe_dump(pod)),), "default"), bed)


def files(*volumes: dict[str, Any]) -> dict[str, tuple[bytes, int]]:
    (volume,) = plan(*volumes).pods[0].volumes
    return {file.path: (file.content, file.mode) for file in volume.files}


def test_all_entries_of_a_config_map_are_files() -> None:
    assert files({"configMap": {"name": "site"}}) == {
        "index.html": (b"hello", 0o644),
        "robots.txt": (b"none", 0o644),
    }


def test_chosen_entries_have_paths_and_modes_of_their_own() -> None:
    items = [{"key": "index.html", "path": "a/b"}, {"key": "robots.txt", "path": "c", "mode": 256}]
    assert files({"configMap": {"name": "site", "items": items, "defaultMode": 0o640}}) == {
        "a/b": (b"hello", 0o640),
        "c": (b"none", 0o400),
    }


def test_a_secret_has_its_mode() -> None:
    found = files({"secret": {"secretName": "tls", "defaultMode": 0o400}})
    assert found == {"key.pem": (b"key", 0o400)}


def test_the_pods_own_fields_are_files() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "cpu", "resourceFieldRef": {"resource": "limits.cpu"}},
    ]
    assert files({"downwardAPI": {"items": items}}) == {
        "labels": (b'app="web"\nb="1"', 0o644),
        "name": (b"web", 0o644),
    }


def test_a_projected_volume_has_the_files_of_all_its_sources() -> None:
    name = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    sources = [
        {"configMap": {"name": "site", "items": [{"key": "robots.txt", "path": "r"}]}},
        {"secret": {"name": "tls"}},
        {"downwardAPI": {"items": [name]}},
        {"serviceAccountToken": {"path": "token"}},
    ]
    volume = {"projected": {"defaultMode": 0o600, "sources": sources}}
    assert files(volume) == {
        "r": (b"none", 0o600),
        "key.pem": (b"key", 0o600),
        "name": (b"web", 0o600),
    }
    assert any("sources[3]" in note for note in plan(volume).notes)


def test_containers_find_volumes_at_paths_outer_ones_first() -> None:
    mounts = [
        {"name": "v1", "mountPath": "/data/site/", "subPath": "index.html"},
        {"name": "v0", "mountPath": "/data"},
        {"name": "v0", "mountPath": "/again", "subPath": "x/y", "readOnly": True},
    ]
    (pod,) = plan({"emptyDir": {}}, {"configMap": {"name": "site"}}, mounts=mounts).pods
    assert pod.volumes[0] == VolumePlan(name="v0", writable=True)
    assert pod.containers[0].mounts == (
        MountPlan(path="/data", volume="v0", writable=True),
        MountPlan(path="/again", volume="v0", sub_path="x/y"),
        MountPlan(path="/data/site", volume="v1", sub_path="index.html"),
    )


def test_unavailable_volumes_are_left_out_with_a_note() -> None:
    found = plan({"hostPath": {"path": "/"}}, mounts=[{"name": "v0", "mountPath": "/host"}])
    assert found.pods[0].volumes == found.pods[0].containers[0].mounts == ()
    assert any('volume "v0" is left out in the testbed' in note for note in found.notes)


def test_an_optional_volume_of_nothing_is_empty() -> None:
    volumes = (
        {"secret": {"secretName": "none", "optional": True}},
        {"configMap": {"name": "none", "optional": True, "items": [{"key": "a", "path": "a"}]}},
    )
    mounts = [{"name": "v0", "mountPath": "/a"}, {"name": "v1", "mountPath": "/b", "subPath": "a"}]
    (pod,) = plan(*volumes, mounts=mounts).pods
    assert pod.volumes == (VolumePlan(name="v0"), VolumePlan(name="v1"))
    assert pod.containers[0].mounts == (MountPlan(path="/a", volume="v0"),)


@pytest.mark.parametrize(
    ("volume", "mount", "problem"),
    [
        ({"secret": {"secretName": "none"}}, {}, "secret: no Secret shop/none in these"),
        ({"configMap": {"name": "none"}}, {}, "configMap: no ConfigMap shop/none in these"),
        (
            {"configMap": {"name": "site", "items": [{"key": "a", "path": "a"}]}},
            {},
            r'items\[0\]\.key: ConfigMap shop/site has no "a" \(it has: index.html, robots.txt\)',
        ),
        (
            {"configMap": {"name": "site", "items": [{"key": "robots.txt", "path": "../a"}]}},
            {},
            r'items\[0\]\.path: "\.\./a" is not a path inside the volume',
        ),
        ({"configMap": {"name": "site"}}, {"name": "v9"}, r'name: no volume "v9" \(known: v0\)'),
        ({"configMap": {"name": "site"}}, {"mountPath": "etc"}, "mountPath: "),
        ({"configMap": {"name": "site"}}, {"mountPath": "/"}, "mountPath: "),
        ({"configMap": {"name": "site"}}, {"subPath": "../x"}, "subPath: "),
        ({"configMap": {"name": "site"}}, {"subPath": "x"}, r'subPath: volume "v0" has no "x"'),
    ],
)
def test_the_mistake_in_a_volume_is_named(
    volume: dict[str, Any], mount: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RejectedError, match=problem):
        plan(volume, mounts=[{"name": "v0", "mountPath": "/data"} | mount])


def test_pods_whose_data_differ_have_other_names() -> None:
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web, envFrom: [{configMapRef: {name: site}}]}]
"""
    bed = Bed(Subnet.parse("198.18.7.0/24"), ImageMap({"web": Image(command=("serve",))}), "n1", {})
    first, second = (
        make_plan(read((("web.yaml", data + text),), "default"), bed).pods[0].name
        for data in (DATA, DATA.replace("hello", "hallo"))
    )
    assert first != second
