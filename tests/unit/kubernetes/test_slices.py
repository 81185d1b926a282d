"""The endpoints that Kubernetes lists."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.kubernetes.slices import EndpointSlice, listed
from meshd.model.listed import ListedEndpoint


def slice_(*endpoints: dict[str, Any], **fields: Any) -> EndpointSlice:
    meta = {
        "name": "web-abc",
        "namespace": "shop",
        "labels": {"kubernetes.io/service-name": "web"},
    }
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    made = {"metadata": meta, "ports": ports, "endpoints": endpoints, **fields}
    return msgspec.json.decode(msgspec.json.encode(made), type=EndpointSlice)


def at(address: str, **conditions: Any) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def test_an_endpoint_has_the_ports_of_its_slice() -> None:
    one = at("198.18.0.5", ready=True) | {"hostname": "web-0", "nodeName": "node1", "zone": "a"}
    assert listed(slice_(one)) == (
        ListedEndpoint(
            namespace="shop",
            service="web",
            address="198.18.0.5",
            ports={"http": 8080},
            hostname="web-0",
            node="node1",
        ),
    )


def test_unknown_readiness_counts_as_ready() -> None:
    found = listed(
        slice_(at("198.18.0.5"), at("198.18.0.6", ready=False), at("198.18.0.7", ready=None))
    )
    assert [one.ready for one in found] == [True, False, True]


def test_an_endpoint_that_ends_is_not_ready() -> None:
    (one,) = listed(slice_(at("198.18.0.5", ready=False, serving=True, terminating=True)))
    assert not one.ready


def test_a_port_without_a_name_has_the_empty_one() -> None:
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 80}, {"name": "none"}]
    (one,) = listed(slice_(at("198.18.0.5"), ports=ports))
    assert one.ports == {"": 80}


def test_what_nothing_can_be_sent_to_is_left_out() -> None:
    assert listed(slice_(at("127.0.0.1"), at("fe80::1%eth0"), {"addresses": []})) == ()
    assert listed(slice_(at("a.test"), addressType="FQDN")) == ()
    assert listed(slice_(endpoints=None)) == ()
    assert listed(slice_(at("198.18.0.5"), metadata={"name": "x", "namespace": "shop"})) == ()


@pytest.mark.parametrize("service", ["My_Service", "a" * 64, "-", "a..b"])
def test_what_no_service_can_have_is_left_out_since_others_are_told_with_it(service: str) -> None:
    meta = {"name": "x", "namespace": "shop", "labels": {"kubernetes.io/service-name": service}}
    assert listed(slice_(at("198.18.0.5"), metadata=meta)) == ()


def test_a_node_or_port_of_an_odd_name_costs_its_endpoint_alone() -> None:
    odd = at("198.18.0.5") | {"nodeName": "node one"}
    assert [one.address for one in listed(slice_(odd, at("198.18.0.6")))] == ["198.18.0.6"]
    ports = [{"name": "not a name", "port": 1}]
    assert listed(slice_(at("198.18.0.5"), ports=ports)) == ()
