"""What tunnels say of the workloads that use them."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.compile.traffic.baggage import baggage
from meshd.compile.traffic.outbound import owner
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Identity, Workload

_KNOWN = "k8s.namespace.name=back,k8s.pod.name=db-0,"


def workload(**fields: Any) -> Workload:
    return Workload(uid="back.db-0", name="db-0", namespace="back", netns="/n", **fields)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, "service.name=db-0,service.version=latest"),
        ({"app": "db", "version": "v1"}, "service.name=db,service.version=v1"),
        (
            {"app": "db", "app.kubernetes.io/name": "pg", "app.kubernetes.io/version": "16"},
            "service.name=pg,service.version=16",
        ),
        (
            {"app": "db", "service.istio.io/canonical-name": "main", "role": "master"},
            "service.name=main,service.version=latest",
        ),
        ({"app": ""}, "service.name=db-0,service.version=latest"),
    ],
)
def test_a_workload_is_named_as_istio_names_it(labels: dict[str, str], expected: str) -> None:
    assert baggage(workload(labels=labels), MeshOptions()) == _KNOWN + expected


@pytest.mark.parametrize(
    ("own", "of_node", "expected"),
    [
        ("", "eu/a/r1", ",cloud.region=eu,cloud.availability_zone=a"),
        ("us", "eu/a", ",cloud.region=us"),
        ("", "", ""),
    ],
)
def test_a_locality_is_told_where_it_is_known(own: str, of_node: str, expected: str) -> None:
    found = baggage(workload(locality=own), MeshOptions(locality=of_node))
    assert found.partition("service.version=latest")[2] == expected


def test_characters_that_end_a_value_are_escaped() -> None:
    found = baggage(workload(locality='e,u/"a;=%'), MeshOptions())
    assert found.endswith(",cloud.region=e%2Cu,cloud.availability_zone=%22a%3B%3D%25")


def test_a_service_of_the_host_is_no_pod() -> None:
    host = HostService(cgroup="x", outbound_port=15101, inbound_port=15102)
    assert "k8s.pod.name" not in baggage(workload(host=host), MeshOptions())


def test_nothing_is_said_where_there_are_no_tunnels() -> None:
    identity = Identity("cluster.local", "back", "db")
    assert not owner(workload(), identity, MeshOptions()).baggage
    on = MeshOptions(hbone=True)
    assert owner(workload(), identity, on).baggage == baggage(workload(), on)
