"""Services as they are shown: with the addresses at which they are reached."""

from __future__ import annotations

from typing import Any

from meshd.api.base import ObjectMeta
from meshd.api.kubernetes.types import Service, ServiceSpec
from meshd.base.json_values import JsonObject
from meshd.config.service_status import as_asked, with_addresses
from meshd.model.service import Endpoint, ServiceRecord

RECORD = ServiceRecord(
    host="web.shop.svc.cluster.local",
    namespace="shop",
    name="web",
    addresses=("198.19.0.7", "fd00:198::7"),
    endpoints=tuple(
        Endpoint(address=address, port=port, service_port=80, ready=ready)
        for address, port, ready in (
            ("198.18.0.11", 8443, True),
            ("198.18.0.11", 8080, True),
            ("198.18.0.12", 8080, False),
        )
    ),
)


def shown(record: ServiceRecord = RECORD, **spec: Any) -> dict[str, Any]:
    meta: JsonObject = {"name": "web", "namespace": "shop"}
    found: JsonObject = {"kind": "Service", "metadata": meta, "spec": spec}
    return with_addresses([found], [record])[0]


def test_the_address_that_the_mesh_has_chosen_is_shown() -> None:
    assert shown()["spec"] == {
        "clusterIP": "198.19.0.7",
        "clusterIPs": ["198.19.0.7", "fd00:198::7"],
    }
    assert shown(clusterIP="None")["spec"] == {"clusterIP": "None"}


def test_a_load_balancer_is_reached_where_its_endpoints_are() -> None:
    assert shown(type="LoadBalancer")["status"]["loadBalancer"]["ingress"] == [
        {
            "ip": "198.18.0.11",
            "ports": [{"port": 8080, "protocol": "TCP"}, {"port": 8443, "protocol": "TCP"}],
        }
    ]
    assert "status" not in shown(type="ClusterIP")


def test_a_service_that_the_mesh_does_not_know_stays_as_it_is() -> None:
    other = ServiceRecord(host="x", namespace="shop", name="x")
    assert shown(other) == {
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {},
    }


def test_the_status_that_a_manifest_brought_along_is_not_shown() -> None:
    elsewhere: JsonObject = {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}
    found: JsonObject = {"metadata": {"name": "web", "namespace": "shop"}, "status": elsewhere}
    for record in (RECORD, ServiceRecord(host="x", namespace="shop", name="x")):
        assert "status" not in with_addresses([found], [record])[0]


def applied(address: str | None, before: str | None = None) -> str | None:
    stored, found = (
        Service(metadata=ObjectMeta(name="web", namespace="shop"), spec=ServiceSpec(cluster_ip=one))
        for one in (before, address)
    )
    asked = as_asked(found, {stored.key: stored}, [RECORD])
    assert isinstance(asked, Service)
    return asked.spec.cluster_ip


def test_an_address_that_was_only_shown_is_not_asked_for_when_it_is_applied_again() -> None:
    assert applied("198.19.0.7") is None
    assert applied("fd00:198::7") is None


def test_an_address_that_somebody_asks_for_is_kept() -> None:
    assert applied("198.19.0.8") == "198.19.0.8"
    assert applied("None") == "None"
    assert applied("198.19.0.7", before="198.19.0.7") == "198.19.0.7"
    assert applied(None, before="198.19.0.7") is None
