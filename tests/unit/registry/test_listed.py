"""The endpoints of Services that Kubernetes lists, with what is known of who runs there."""

from __future__ import annotations

import msgspec
import pytest

from meshd.api.base import ObjectMeta
from meshd.api.kubernetes.types import Namespace, Service, ServicePort, ServiceSpec
from meshd.model.listed import SERVICE_NAME, ListedEndpoint
from meshd.model.service import Endpoint
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import NamedPort, Workload
from meshd.registry.registry import Registry, build_snapshot

SERVICE = Service(
    metadata=ObjectMeta(name="web", namespace="shop"),
    spec=ServiceSpec(
        ports=(
            ServicePort(port=80, name="http", target_port="web"),
            ServicePort(port=81, name="admin", target_port=9000),
        ),
        selector={SERVICE_NAME: "web"},
        cluster_ip="198.19.0.7",
    ),
)
SHOP = Namespace(metadata=ObjectMeta(name="shop"))
WORKLOAD = Workload(
    uid="shop.web-0",
    name="web-0",
    namespace="shop",
    netns="/n",
    addresses=("198.18.0.5", "fd00:198::5"),
    labels={"app": "web", "version": "v1"},
    service_account="buyer",
    ports=(NamedPort("web", 1),),
)
OPTIONS = MeshOptions(node="node1")


def listed(address: str = "198.18.0.5", **fields: object) -> ListedEndpoint:
    one = ListedEndpoint(
        namespace="shop", service="web", address=address, ports={"http": 8080, "admin": 9001}
    )
    return msgspec.structs.replace(one, **fields)


def endpoints(snapshot: Snapshot) -> tuple[Endpoint, ...]:
    return snapshot.services["web.shop.svc.cluster.local"].endpoints


def built(*found: ListedEndpoint, workloads: tuple[Workload, ...] = ()) -> tuple[Endpoint, ...]:
    objects = (SHOP, SERVICE)
    return endpoints(build_snapshot(objects, workloads, OPTIONS, {}, listed=found))


def test_an_endpoint_of_nobody_that_is_known_is_reached_in_plaintext() -> None:
    first, second = built(listed(node="node2"))
    assert (first.service_port, first.port) == (80, 8080)
    assert (second.service_port, second.port) == (81, 9001)
    assert (first.mutual_tls, first.workload, first.service_account) == (False, "", "")
    assert first.node == "node2"


@pytest.mark.parametrize("address", WORKLOAD.addresses)
def test_an_endpoint_is_the_workload_that_runs_at_its_address(address: str) -> None:
    one, _ = built(listed(address), workloads=(WORKLOAD,))
    assert (one.workload, one.service_account, one.mutual_tls) == ("shop.web-0", "buyer", True)
    assert one.address == address
    assert one.labels["version"] == "v1"
    assert one.node == "node1"


def test_ports_are_those_that_are_listed_whatever_the_workload_declares() -> None:
    assert [one.port for one in built(listed(), workloads=(WORKLOAD,))] == [8080, 9001]
    assert [one.port for one in built(listed(ports={"http": 1}), workloads=(WORKLOAD,))] == [1]


def test_a_workload_at_the_same_address_in_another_namespace_is_another_one() -> None:
    other = msgspec.structs.replace(WORKLOAD, namespace="else")
    assert not built(listed(), workloads=(other,))[0].mutual_tls


def test_a_workload_that_no_slice_has_is_no_endpoint() -> None:
    assert built(workloads=(WORKLOAD,)) == ()


@pytest.mark.parametrize(
    ("listed_ready", "ready", "expected"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_an_endpoint_is_ready_if_it_is_listed_so_and_its_workload_is(
    *, listed_ready: bool, ready: bool, expected: bool
) -> None:
    workload = msgspec.structs.replace(WORKLOAD, ready=ready)
    assert built(listed(ready=listed_ready), workloads=(workload,))[0].ready is expected


def test_what_changes_is_followed_and_what_does_not_stays_the_same_object() -> None:
    registry = Registry()

    def take(*found: ListedEndpoint, workloads: tuple[Workload, ...] = ()) -> Snapshot:
        given = (SHOP, SERVICE), workloads, OPTIONS, {}, 0, ()
        snapshot = registry.snapshot(*given, found)
        assert endpoints(snapshot) == built(*found, workloads=workloads)
        return snapshot

    first = take(listed(), listed("198.18.0.6"))
    assert take(listed(), listed("198.18.0.6")).services is first.services
    take(listed(), listed("198.18.0.6"), workloads=(WORKLOAD,))
    take(listed(ready=False), listed("198.18.0.6"), workloads=(WORKLOAD,))
    take(listed("198.18.0.6"), workloads=(WORKLOAD,))
    take(listed("198.18.0.6"))
    take()
