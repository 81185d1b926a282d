"""The Service in front of an enrolled workload: made, given ports, or taken back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from meshd.api.object_fields import name_of, namespace_of
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject, list_at, mapping_at, value_at
from meshd.wire import OfferedPort

MADE_FOR: Final = "meshd.io/made-for"
"""Annotation of a Service that was made by ``enroll``: the workload that it was made for."""


def wanted(
    before: JsonObject | None, name: str, namespace: str, ports: tuple[OfferedPort, ...], uid: str
) -> JsonObject:
    """Return the Service that is to be there; ``before``: the one that is. Raises
    InvalidInputError."""
    if before is not None:
        return merged_service(before, ports)
    return new_service(name, namespace, ports, {MADE_FOR: uid})


def new_service(
    name: str, namespace: str, ports: tuple[OfferedPort, ...], annotations: Mapping[str, str]
) -> JsonObject:
    """Raises InvalidInputError without ports."""
    if not ports:
        raise InvalidInputError(f"Service {namespace}/{name} is new: give its ports with --port")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": {**annotations}},
        "spec": {"selector": {"app": name}, "ports": [_port(one) for one in ports]},
    }


def merged_service(stored: JsonObject, ports: tuple[OfferedPort, ...]) -> JsonObject:
    """Add the missing ports to a stored Service. Raises InvalidInputError if it has no selector."""
    spec = mapping_at(stored, "spec")
    name = f"{namespace_of(stored) or 'default'}/{name_of(stored)}"
    if not spec.get("selector"):
        raise InvalidInputError(f"Service {name} has no selector, so no workload can join it")
    known = numbers(stored)
    missing = [_port(one) for one in ports if one.service_port not in known]
    if not missing:
        return stored
    return {**stored, "spec": {**spec, "ports": [*list_at(spec, "ports"), *missing]}}


def is_as_merged(now: JsonObject, before: JsonObject, ports: tuple[OfferedPort, ...]) -> bool:
    """Return whether a Service has the ports that were added to it, and no others."""
    return numbers(now) == numbers(before) | {one.service_port for one in ports}


def numbers(service: JsonObject) -> set[int]:
    ports = (value_at(port, "port") for port in list_at(service, "spec", "ports"))
    return {port for port in ports if isinstance(port, int)}


def made_for(services: Iterable[JsonObject], uid: str) -> tuple[str, ...]:
    """Return the names of the Services that were made for a workload."""
    return tuple(
        name_of(one)
        for one in services
        if value_at(one, "metadata", "annotations", MADE_FOR) == uid
    )


def _port(one: OfferedPort) -> JsonObject:
    return {"name": one.name, "port": one.service_port, "targetPort": one.port}
