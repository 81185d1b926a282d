"""What Kubernetes adds to a Service: the addresses at which it is reached. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshd.model.service import ServiceRecord


def with_addresses(
    objects: Iterable[dict[str, Any]], records: Iterable[ServiceRecord]
) -> tuple[dict[str, Any], ...]:
    """Services as they are shown: with the virtual address that the mesh has chosen, and, of a
    LoadBalancer, the endpoints that are asked from outside. A status that came with a manifest was
    that of another place."""
    known = {(record.namespace, record.name): record for record in records if record.name}
    return tuple(_with_addresses(found, known) for found in objects)


def _with_addresses(
    found: dict[str, Any], known: dict[tuple[str, str], ServiceRecord]
) -> dict[str, Any]:
    record = known.get((found["metadata"].get("namespace", ""), found["metadata"]["name"]))
    found = {key: value for key, value in found.items() if key != "status"}
    if record is None:
        return found
    spec: dict[str, Any] = found.get("spec", {})
    if record.addresses and not record.headless and "clusterIP" not in spec:
        spec = spec | {"clusterIP": record.addresses[0], "clusterIPs": list(record.addresses)}
    shown = found | {"spec": spec}
    if spec.get("type") == "LoadBalancer" and (ingress := _ingress(record)):
        shown["status"] = {"loadBalancer": {"ingress": ingress}}
    return shown


def _ingress(record: ServiceRecord) -> list[dict[str, Any]]:
    """Nobody stands in front of the endpoints: each is reached at its own address and port."""
    ports: dict[str, set[int]] = {}
    for endpoint in record.endpoints:
        if endpoint.ready:
            ports.setdefault(endpoint.address, set()).add(endpoint.port)
    return [
        {"ip": address, "ports": [{"port": port, "protocol": "TCP"} for port in sorted(numbers)]}
        for address, numbers in sorted(ports.items())
    ]
