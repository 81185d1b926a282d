"""Objects that ask for pods → the pods' names, and how they are replaced."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshd.api.read import RejectedError
from meshd.model.pod import OwnerPlan, Strategy
from meshd.pods.addresses import Subnet
from meshd.pods.client import read
from meshd.pods.images import Image, ImageMap
from meshd.pods.plan import Bed, Plan, make_plan


def plan(kind: str, command: str = "serve", **spec: Any) -> Plan:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    }
    written = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template} | spec,
    }
    images = ImageMap({"web": Image(command=(command,))}, "map")
    bed = Bed(Subnet.parse("198.18.7.0/24"), images, "n1", {})
    return make_plan(read((("web.yaml", yaml.safe_dump(written)),), "default"), bed)


def strategy(kind: str, **spec: Any) -> Strategy:
    (owner,) = plan(kind, **spec).owners
    assert owner == OwnerPlan(name=f"{kind} shop/web", strategy=owner.strategy)
    return owner.strategy


@pytest.mark.parametrize(
    ("replicas", "rolling", "surge", "unavailable"),
    [
        (1, {}, 1, 0),
        (4, {}, 1, 1),
        (10, {}, 3, 2),
        (4, {"maxSurge": 2}, 2, 1),
        (4, {"maxSurge": 0}, 0, 1),
        (3, {"maxSurge": 0}, 0, 1),
        (3, {"maxSurge": "0%", "maxUnavailable": "10%"}, 0, 1),
        (4, {"maxSurge": "100%", "maxUnavailable": 0}, 4, 0),
    ],
)
def test_a_deployment_rolls_by_numbers_or_shares(
    replicas: int, rolling: dict[str, Any], surge: int, unavailable: int
) -> None:
    found = strategy(
        "Deployment",
        replicas=replicas,
        minReadySeconds=2,
        strategy={"type": "RollingUpdate", "rollingUpdate": rolling},
    )
    assert found == Strategy(
        order="rolling", surge=surge, unavailable=unavailable, min_ready_seconds=2
    )


def test_recreate_is_read() -> None:
    assert strategy("Deployment", strategy={"type": "Recreate"}).order == "recreate"


def test_pods_of_a_stateful_set_have_ordinals() -> None:
    found = plan("StatefulSet", serviceName="web", replicas=3)
    assert [pod.name for pod in found.pods] == ["web-0", "web-1", "web-2"]
    assert strategy("StatefulSet", replicas=3).order == "ordered"


def test_a_daemon_set_has_one_pod_which_ends_before_the_next_one_starts() -> None:
    assert len(plan("DaemonSet").pods) == 1
    assert strategy("DaemonSet") == Strategy(order="rolling", surge=0, unavailable=1)


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_pods_of_an_image_that_runs_something_else_now_have_other_names(kind: str) -> None:
    assert plan(kind, "serve").pods[0].name != plan(kind, "serve2").pods[0].name


@pytest.mark.parametrize(
    ("rolling", "field"),
    [
        ({"maxSurge": "1/4"}, "maxSurge"),
        ({"maxSurge": -1}, "maxSurge"),
        ({"maxUnavailable": "101%"}, "maxUnavailable"),
        ({"maxSurge": 0, "maxUnavailable": "0%"}, "maxUnavailable"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(rolling: dict[str, Any], field: str) -> None:
    with pytest.raises(RejectedError, match=rf"spec\.strategy\.rollingUpdate\.{field}: "):
        plan("Deployment", strategy={"rollingUpdate": rolling})
