"""Closed services have what tells their traffic from other traffic, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.api.base import Key, Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.virtual_service.types import VirtualService
from meshd.config.withheld import closed_value
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.service import Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions
from meshd.registry.registry import build_snapshot


def value(kind: str, spec: Any) -> dict[str, Any]:
    version = "v1" if kind == "Service" else "networking.istio.io/v1"
    meta = {"name": "db", "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def stands_for(kind: str, spec: Any) -> Object:
    found = closed_value(value(kind, spec))
    assert found is not None
    assert found.key == Key(kind, "shop", "db")
    return found


def records(*objects: Object) -> dict[str, ServiceRecord]:
    return build_snapshot(objects, (), MeshOptions(), {}).services


def test_an_entry_that_cannot_be_read_whole_is_closed_with_what_can_be_read() -> None:
    spec = {
        "hosts": ["a.test", "not a host"],
        "addresses": ["198.19.0.1", "nowhere"],
        "ports": [{"number": 80, "name": "http"}, {"number": 99999, "name": "far"}],
        "resolution": "DNS",
        "newer": 1,
    }
    (record,) = records(stands_for("ServiceEntry", spec)).values()
    assert (record.host, record.closed, record.addresses) == ("a.test", True, ("198.19.0.1",))
    assert [port.number for port in record.ports] == [80, 443]
    assert (record.resolution, record.endpoints) == (Resolution.STATIC, ())


@pytest.mark.parametrize("ports", [None, 5, [{"number": "x"}]], ids=["none", "a number", "a text"])
def test_of_an_entry_without_ports_the_usual_ones_are_closed(ports: Any) -> None:
    spec = {"hosts": ["a.test"]} | ({} if ports is None else {"ports": ports})
    (record,) = records(stands_for("ServiceEntry", spec)).values()
    assert [port.number for port in record.ports] == [80, 443]
    assert record.closed


@pytest.mark.parametrize("address", ["198.19.0.1", "None", None])
def test_a_service_is_closed_at_its_address(address: str | None) -> None:
    spec = {"clusterIP": address, "selector": {"app": "a"}, "ports": [{"port": 80}, {"port": 0}]}
    (record,) = records(stands_for("Service", spec)).values()
    assert record.closed
    assert record.headless is (address == "None")
    assert record.addresses == (("198.19.0.1",) if address == "198.19.0.1" else ())
    assert [port.number for port in record.ports] == [80, 443]


def test_a_host_of_which_one_object_is_closed_is_closed() -> None:
    entry = {"hosts": ["db.shop.svc.cluster.local"], "ports": [{"number": 80, "name": "http"}]}
    service = {"clusterIP": "198.19.0.1", "ports": [{"port": 80}]}
    closed = stands_for("ServiceEntry", entry)
    whole = build_snapshot([closed], (), MeshOptions(), {}).services
    assert all(record.closed for record in whole.values())
    (record,) = records(closed, stands_for("Service", service)).values()
    assert record.closed


def test_routes_that_cannot_be_read_close_their_hosts() -> None:
    found = stands_for("VirtualService", {"hosts": ["a.test", "not a host"], "http": 5})
    assert isinstance(found, ClosedRoutes)
    assert found.spec.hosts == ("a.test",)
    assert (len(found.spec.http), len(found.spec.tls), len(found.spec.tcp)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "number", "bad"),
    [
        ("ServiceEntry", "number", {"number": 9187, "name": "http", "protocol": 7}),
        ("ServiceEntry", "number", {"number": 9187}),
        ("ServiceEntry", "number", {"number": 9187, "name": 7}),
        ("Service", "port", {"port": 9187, "protocol": 7}),
    ],
)
def test_ports_are_read_one_by_one(kind: str, number: str, bad: Any) -> None:
    good = {number: 5432, "name": "tcp"}
    spec = {"hosts": ["a.test"], "ports": [7, {"name": "x"}, {number: "80x", "name": "x"}, good]}
    (record,) = records(stands_for(kind, spec)).values()
    assert [port.number for port in record.ports] == [5432, 80, 443]
    (record,) = records(stands_for(kind, {"hosts": ["a.test"], "ports": [good, bad]})).values()
    assert [port.number for port in record.ports] == [5432, 9187, 80, 443]


def test_of_what_can_be_read_whole_no_more_is_closed_than_it_had() -> None:
    spec = {"hosts": ["a.test"], "ports": [{"number": 5432, "name": "tcp"}]}
    (record,) = records(stands_for("ServiceEntry", spec)).values()
    assert [port.number for port in record.ports] == [5432]


ROUTE = {"route": [{"destination": {"host": "egress"}}]}


@pytest.mark.parametrize(
    "bad",
    [
        {"http": [7]},
        {"http": "garbage"},
        {"http": [{"newer": 1, **ROUTE}]},
        {"tls": [{"match": [{"sniHosts": ["a.test", 7]}], **ROUTE}]},
        {"tcp": [{"match": 7, **ROUTE}]},
        {"newer": []},
        {"hosts": ["a.test", 7, "b.test"]},
        {"http": [7] * 1000},
    ],
    ids=lambda bad: str(bad)[:40],
)
def test_routes_of_which_a_part_cannot_be_read_close_all_protocols(bad: Any) -> None:
    good = {"tls": [{"match": [{"sniHosts": ["a.test"]}], **ROUTE}]}
    found = stands_for("VirtualService", {"hosts": ["a.test", "b.test"], **good, **bad})
    assert isinstance(found, ClosedRoutes)
    assert found.spec.hosts == ("a.test", "b.test")
    assert (len(found.spec.http), len(found.spec.tls), len(found.spec.tcp)) == (1, 1, 1)
    assert found.spec.tls[0].match[0].sni_hosts == ("a.test", "b.test")


@pytest.mark.parametrize("export_to", [7, [".", 7], [".", "newer syntax"]], ids=str)
@pytest.mark.parametrize("kind", ["VirtualService", "ServiceEntry", "DestinationRule"])
def test_what_does_not_say_for_whom_it_is_is_closed_for_all(kind: str, export_to: Any) -> None:
    about = {"host": "a.test"} if kind == "DestinationRule" else {"hosts": ["a.test"]}
    found = stands_for(kind, {**about, "exportTo": export_to})
    assert isinstance(found, VirtualService | ServiceEntry | DestinationRule)
    assert found.spec.export_to == ()


def test_routes_whose_gateways_cannot_be_read_are_closed_in_the_mesh_too() -> None:
    found = stands_for("VirtualService", {"hosts": ["a.test"], "gateways": ["edge", 7]})
    assert isinstance(found, VirtualService)
    assert found.spec.gateways == ("mesh", "edge")


@pytest.mark.parametrize("addresses", [["198.19.0.1", 7], [7, "198.19.0.1"]], ids=str)
def test_hosts_and_addresses_are_read_one_by_one(addresses: Any) -> None:
    spec = {"hosts": [7, "a.test"], "addresses": addresses}
    (record,) = records(stands_for("ServiceEntry", spec)).values()
    assert (record.host, record.addresses) == ("a.test", ("198.19.0.1",))


@pytest.mark.parametrize(
    "unknown", [5, {}, value("Unheard", {}), value("ServiceEntry", {}), value("Service", {})]
)
def test_what_says_nothing_of_itself_stands_for_nothing_or_no_address(unknown: Any) -> None:
    found = closed_value(unknown)
    assert found is None or not any(one.addresses for one in records(found).values())
