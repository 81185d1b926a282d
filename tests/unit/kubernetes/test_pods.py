"""The workload of a pod."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.kubernetes.objects import Pod
from meshd.kubernetes.pods import of_pod
from meshd.model.workload import LONGEST_PINNED, NamedPort, Workload

READY = {
    "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]
}


def pod(metadata: dict[str, Any] | None = None, **fields: Any) -> Pod:
    meta = {"name": "web-0", "namespace": "shop", "uid": "1", **(metadata or {})}
    return msgspec.convert({"metadata": meta, **fields}, Pod)


def workload(found: Pod, addresses: tuple[str, ...] = ("198.18.0.5",)) -> Workload:
    """As the mesh role takes it: it checks each part."""
    made = of_pod(found, "/run/netns/x", addresses, enrolled=True)
    return msgspec.json.decode(msgspec.json.encode(made), type=Workload)


def test_it_is_named_as_the_pod_and_acts_as_its_account() -> None:
    found = workload(pod(spec={"serviceAccountName": "buyer"}))
    assert (found.uid, found.name, found.namespace) == ("shop.web-0", "web-0", "shop")
    assert (found.service_account, found.hostname, found.enrolled) == ("buyer", "web-0", True)


def test_ports_that_a_service_may_name_are_known() -> None:
    containers = [
        {"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]},
        {"ports": [{"name": "admin", "containerPort": 9000}]},
        {},
    ]
    ports = workload(pod(spec={"containers": containers})).ports
    assert ports == (NamedPort("http", 8080), NamedPort("", 9090), NamedPort("admin", 9000))


@pytest.mark.parametrize(
    ("metadata", "status", "ready"),
    [
        ({}, READY, True),
        ({}, {}, False),
        ({}, {"conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, READY, False),
    ],
)
def test_it_is_ready_as_the_pod_is_unless_that_is_being_deleted(
    metadata: dict[str, Any], status: dict[str, Any], ready: bool
) -> None:
    assert workload(pod(metadata, status=status)).ready is ready


def test_addresses_are_those_of_the_network_or_else_those_that_are_told() -> None:
    status = {"podIPs": [{"ip": "fd00:198::5"}, {"ip": "198.18.0.6"}, {"ip": ""}]}
    found = pod(status=status)
    assert workload(found).addresses == ("198.18.0.5",)
    assert workload(found, ()).addresses == ("198.18.0.6", "fd00:198::5")


def test_annotations_that_are_not_about_the_mesh_may_be_of_any_size() -> None:
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": "x" * 200_000,
        "sidecar.istio.io/inject": "false",
        "meshd.io/max-connections": "7",
    }
    found = workload(pod({"annotations": annotations}))
    assert found.annotations.keys() == {"sidecar.istio.io/inject", "meshd.io/max-connections"}


@pytest.mark.parametrize(
    ("metadata", "spec", "hostname"),
    [
        ({"name": "a.b"}, {}, ""),
        ({"name": "a.b"}, {"hostname": "set"}, "set"),
    ],
)
def test_a_name_that_is_no_host_name_gives_none(
    metadata: dict[str, Any], spec: dict[str, Any], hostname: str
) -> None:
    assert workload(pod(metadata, spec=spec)).hostname == hostname


@pytest.mark.parametrize("name", ["a" * 64, "a" * 253, f"{'a' * 62}.{'b' * 190}", "a-" * 80 + "a"])
def test_a_name_that_is_too_long_is_shortened_and_stays_its_own(name: str) -> None:
    found, other = workload(pod({"name": name})), workload(pod({"name": f"{name[:-1]}x"}))
    assert found.name != other.name
    assert len(found.uid) <= LONGEST_PINNED
    assert found.name.startswith("a")
