"""Manifests → pods."""

from __future__ import annotations

import re

import pytest

from meshd.api.read import RejectedError
from meshd.pods.addresses import Subnet
from meshd.pods.client import read
from meshd.pods.images import Image, ImageMap
from meshd.pods.plan import Bed, Plan, make_plan

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {not: these}}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: shop-web
      containers:
      - name: web
        image: IMAGE
        imagePullPolicy: Always
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {port: http}}
        env:
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
"""
BED = Bed(
    subnet=Subnet.parse("198.18.7.0/24"),
    images=ImageMap({"web": Image(command=("serve",), env={"A": "1"}, directory="/srv")}, "map"),
    node="n1",
    namespaces={},
)


def plan(text: str, bed: Bed = BED, replicas: int = 1, image: str = "web") -> Plan:
    text = text.replace("REPLICAS", str(replicas)).replace("IMAGE", image)
    return make_plan(read((("web.yaml", text),), "default"), bed)


def test_a_deployment_has_as_many_pods_as_replicas_with_names_of_its_own() -> None:
    pods = plan(WEB, replicas=3).pods
    assert len({pod.name for pod in pods}) == 3
    for pod in pods:
        assert re.fullmatch(r"web-[a-z0-9]{10}-[a-z0-9]{5}", pod.name)
        assert pod.uid == f"shop.{pod.name}"
        assert pod.owner == "Deployment shop/web"
        assert pod.labels == {"app": "web"}
        assert pod.service_account == "shop-web"


def test_names_stay_when_replicas_are_added_and_change_with_the_template() -> None:
    few = [pod.name for pod in plan(WEB, replicas=2).pods]
    many = [pod.name for pod in plan(WEB, replicas=4).pods]
    other = [pod.name for pod in plan(WEB.replace("shop-web", "other"), replicas=2).pods]
    assert many[:2] == few
    assert not set(other) & set(few)


def test_each_pod_has_its_address_and_user_which_stay_when_others_come() -> None:
    first = plan(WEB, replicas=2)
    bed = Bed(BED.subnet, BED.images, "n1", {}, running=first.pods[1:])
    again = plan(WEB, bed, replicas=3)
    assert again.pods[1] == first.pods[1]
    assert len({pod.address for pod in again.pods}) == 3
    assert len({pod.user for pod in again.pods}) == 3
    assert all(pod.address.startswith("198.18.7.") and pod.user > 200_000 for pod in again.pods)


def test_a_container_knows_its_command_environment_and_probe() -> None:
    pod = plan(WEB).pods[0]
    container = pod.containers[0]
    assert container.command == ("serve",)
    assert container.environment["IP"] == pod.address
    assert container.environment["A"] == "1"
    assert container.readiness and container.readiness.http_get
    assert container.readiness.http_get.port == 8080
    assert [(port.name, port.number) for port in pod.ports] == [("http", 8080)]


def test_no_replicas_are_no_pods_but_still_an_owner() -> None:
    found = plan(WEB, replicas=0)
    assert found.pods == ()
    assert [owner.name for owner in found.owners] == ["Deployment shop/web"]


def test_an_unknown_image_is_named_with_manifest_and_line() -> None:
    with pytest.raises(RejectedError) as error:
        plan(WEB, image="wep:3", replicas=2)
    assert str(error.value) == (
        "web.yaml:14: Deployment shop/web: spec.template.spec.containers[0].image: "
        'image "wep:3" is not in map (did you mean web?); say there what to run for it'
    )


def test_an_image_that_runs_nothing_needs_a_command() -> None:
    bed = Bed(BED.subnet, ImageMap({"web": Image()}, "map"), "n1", {})
    with pytest.raises(RejectedError, match="neither the manifest nor the image map says what"):
        plan(WEB, bed)


def test_a_field_that_means_nothing_here_is_told_once() -> None:
    two = WEB + "---" + WEB.replace("name: web, namespace", "name: two, namespace")
    notes = plan(two, replicas=2).notes
    assert notes == (
        "web.yaml:15: Deployment shop/web: spec.template.spec.containers[0].imagePullPolicy: "
        "imagePullPolicy is ignored in the testbed",
    )


@pytest.mark.parametrize(
    ("namespace", "pod", "enrolled"),
    [
        ("", "", False),
        ("istio.io/dataplane-mode: ambient", "", True),
        ("istio-injection: enabled", "", True),
        ("istio-injection: enabled", "istio.io/dataplane-mode: none", False),
        ("", "istio.io/dataplane-mode: ambient", True),
    ],
)
def test_labels_decide_who_is_in_the_mesh(namespace: str, pod: str, enrolled: bool) -> None:
    text = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{{namespace}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{{pod}}}}}
spec: {{containers: [{{name: web, image: web}}]}}
"""
    assert plan(text).pods[0].enrolled is enrolled


def test_labels_of_a_namespace_that_only_the_mesh_knows_count_too() -> None:
    bed = Bed(BED.subnet, BED.images, "n1", {"shop": {"istio.io/dataplane-mode": "ambient"}})
    assert plan(WEB, bed).pods[0].enrolled
    assert not plan(WEB).pods[0].enrolled


def test_a_full_network_is_an_error_that_says_what_to_do() -> None:
    bed = Bed(Subnet.parse("198.18.7.0/28"), BED.images, "n1", {})
    with pytest.raises(Exception, match=r"no address is left in 198\.18\.7\.0/28; .*--cidr"):
        plan(WEB, bed, replicas=6)
