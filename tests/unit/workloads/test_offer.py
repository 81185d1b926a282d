"""The Service in front of an enrolled workload: what is made, and what is added to one that is
there."""

from __future__ import annotations

import pytest

from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject, list_at, value_at
from meshd.wire import OfferedPort
from meshd.workloads.offer import is_as_merged, made_for, merged_service, new_service, wanted

STORED: JsonObject = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "mesh"},
    "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80}]},
}


def test_a_new_service_has_the_ports() -> None:
    made = new_service("web", "mesh", (OfferedPort(80, 8080, "http"),), {})
    assert value_at(made, "spec", "ports") == [{"name": "http-80", "port": 80, "targetPort": 8080}]


def test_a_new_service_without_ports_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--port"):
        new_service("web", "mesh", (), {})


def test_a_stored_service_gets_what_it_lacks() -> None:
    assert merged_service(STORED, (OfferedPort(80, 8080, "http"),)) is STORED
    merged = merged_service(STORED, (OfferedPort(80, 80, "http"), OfferedPort(90, 9090, "grpc")))
    assert [value_at(port, "port") for port in list_at(merged, "spec", "ports")] == [80, 90]
    assert len(list_at(STORED, "spec", "ports")) == 1


def test_a_service_that_selects_nothing_cannot_be_joined() -> None:
    without: JsonObject = {**STORED, "spec": {"ports": []}}
    with pytest.raises(InvalidInputError, match="has no selector"):
        merged_service(without, ())


def test_only_a_service_that_was_made_for_a_workload_is_its_own() -> None:
    made = wanted(None, "front", "mesh", (OfferedPort(80, 80, "http"),), "mesh.web")
    assert made_for((STORED, made), "mesh.web") == ("front",)
    assert made_for((STORED, made), "mesh.other") == ()


def test_ports_that_somebody_has_changed_since_are_told_from_those_that_were_added() -> None:
    added = (OfferedPort(90, 9090, "grpc"),)
    merged = merged_service(STORED, added)
    assert is_as_merged(merged, STORED, added)
    changed = merged_service(merged, (OfferedPort(91, 91, "tcp"),))
    assert not is_as_merged(changed, STORED, added)
