"""The address of a WorkloadEntry that is not in force is closed, unless others declare it."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.api.base import Key, Object
from meshd.api.read import read_objects
from meshd.config.withheld import closed_value
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.addresses import VirtualAddresses
from meshd.registry.registry import Registry, build_snapshot
from meshd.registry.snapshots import Given, take

NONE: VirtualAddresses = {}


def stands_for(address: Any, name: str = "vm") -> Object:
    value: dict[str, Any] = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"address": address, "labels": {"app": "db"}, "newer": 1},
    }
    found = closed_value(value)
    assert found is not None
    assert found.key == Key("WorkloadEntry", "shop", name)
    return found


def closed(snapshot: Snapshot) -> dict[str, str]:
    return {one.address: str(one.key) for one in snapshot.options.closed_addresses}


def snapshot(*objects: Object, workloads: tuple[Workload, ...] = ()) -> Snapshot:
    return build_snapshot(objects, workloads, MeshOptions(), NONE)


def objects(text: str) -> list[Object]:
    return [read.object for read in read_objects(text, "a.yaml")]


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("198.18.0.9", "198.18.0.9"),
        ("FD00:198:0::9", "fd00:198::9"),
        ("::ffff:198.18.0.9", "198.18.0.9"),
    ],
)
def test_the_address_is_closed_as_a_listener_sees_it(written: str, address: str) -> None:
    assert closed(snapshot(stands_for(written))) == {address: "WorkloadEntry shop/vm"}


HEADLESS = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 5432}]}
"""


def test_a_closed_workload_is_no_endpoint_of_a_service() -> None:
    (record,) = snapshot(*objects(HEADLESS), stands_for("198.18.0.9")).services.values()
    assert record.endpoints == ()


ENTRY = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: other, namespace: other}
spec: {address: ADDRESS}
"""
OTHERS = {
    "a workload entry": ENTRY,
    "an endpoint": """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: other}
spec:
  hosts: [other.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http}]
  endpoints: [{address: ADDRESS}]
""",
    "a service entry": """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: other}
spec:
  hosts: [other.example.com]
  addresses: [ADDRESS]
  ports: [{number: 80, name: http}]
""",
    "a service entry with a network": """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: other}
spec:
  hosts: [other.example.com]
  addresses: [ADDRESS/LENGTH]
  ports: [{number: 80, name: http}]
""",
    "a service": """
apiVersion: v1
kind: Service
metadata: {name: other, namespace: other}
spec: {clusterIP: ADDRESS, ports: [{port: 80}]}
""",
}


def _at(text: str, address: str) -> str:
    length = "128" if ":" in address else "32"
    network = text.replace("ADDRESS/LENGTH", f'"{address}/{length}"')
    return network.replace("ADDRESS", f'"{address}"')


@pytest.mark.parametrize("address", ["198.18.0.9", "fd00:198::9"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_an_address_that_another_object_in_force_declares_is_not_closed(
    other: str, address: str
) -> None:
    beside = stands_for("198.18.0.8", "beside")
    written = address.replace("fd00:198::9", "FD00:198:0::9")
    others = objects(_at(other, written))
    found = snapshot(*others, stands_for(address), beside)
    assert closed(found) == {"198.18.0.8": "WorkloadEntry shop/beside"}


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "elsewhere"])
def test_an_address_of_a_workload_is_not_closed(*, is_elsewhere: bool) -> None:
    workload = Workload(
        uid="shop.a", name="a", namespace="shop", netns="/a", addresses=("10.0.0.1", "198.18.0.9")
    )
    own, elsewhere = ((), (workload,)) if is_elsewhere else ((workload,), ())
    given = [stands_for("198.18.0.9")]
    assert closed(build_snapshot(given, own, MeshOptions(), NONE, elsewhere=elsewhere)) == {}


def test_an_object_that_is_closed_itself_does_not_open_the_address() -> None:
    service = closed_value(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"clusterIP": "198.18.0.9", "ports": [{"port": 80}], "newer": 1},
        }
    )
    assert service is not None
    assert closed(snapshot(service, stands_for("198.18.0.9"))).keys() == {"198.18.0.9"}


def test_a_closed_workload_is_open_while_another_object_declares_it() -> None:
    registry = Registry()
    vm, others = stands_for("198.18.0.9"), objects(ENTRY.replace("ADDRESS", "198.18.0.9"))
    closings = [
        bool(closed(registry.snapshot(given, (), MeshOptions(), NONE)))
        for given in ([vm], [vm, *others], [vm], others)
    ]
    assert closings == [True, False, True, False]


def test_status_names_what_is_refused_and_why() -> None:
    given = Given((), (stands_for("198.18.0.9"),), {}, 1, (), (), {}, "")
    (problem,) = take(given, (), MeshOptions(), "").problems
    assert problem == (
        "connections to 198.18.0.9 are refused, because WorkloadEntry shop/vm is not in force"
    )
