"""The status that Kubernetes adds to a Service: the addresses at which it is reached. Pure.

What is shown may be applied again, so the addresses that the mesh has chosen are told from those
that somebody asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Service
from meshd.model.service import ServiceRecord


def with_addresses(
    objects: Iterable[dict[str, Any]], records: Iterable[ServiceRecord]
) -> tuple[dict[str, Any], ...]:
    """Return Services with their addresses.

    These are the virtual address that the mesh has chosen and, of a LoadBalancer, the endpoints
    that are reached from outside. A status that came with a manifest was that of another place and
    is dropped.
    """
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
    """Return the endpoints themselves: nothing stands in front of them."""
    ports: dict[str, set[int]] = {}
    for endpoint in record.endpoints:
        if endpoint.ready:
            ports.setdefault(endpoint.address, set()).add(endpoint.port)
    return [
        {"ip": address, "ports": [{"port": port, "protocol": "TCP"} for port in sorted(numbers)]}
        for address, numbers in sorted(ports.items())
    ]


def as_asked(
    found: Object, stored: Mapping[Key, Object], records: Iterable[ServiceRecord]
) -> Object:
    """Return an object without an address that was only shown.

    ``stored`` has the objects as they were asked for before, ``records`` the addresses that they
    are shown with.
    """
    before = stored.get(found.key)
    if not isinstance(found, Service) or not isinstance(before, Service):
        return found
    if before.spec.cluster_ip is not None or found.spec.cluster_ip is None:
        return found
    owner = (found.metadata.namespace, found.metadata.name)
    chosen = (one.addresses for one in records if (one.namespace, one.name) == owner)
    if not any(found.spec.cluster_ip in addresses for addresses in chosen):
        return found
    spec = msgspec.structs.replace(found.spec, cluster_ip=None, cluster_ips=())
    return msgspec.structs.replace(found, spec=spec)
