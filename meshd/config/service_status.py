"""Adds the status that Kubernetes gives a Service: the addresses at which it is reached. Pure.

The Services that are shown may be applied again, so addresses that the mesh has chosen are told
from addresses that a user asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Service
from meshd.api.object_fields import name_of, namespace_of
from meshd.base.json_values import Json, JsonObject, mapping_at
from meshd.model.service import ServiceRecord


def with_addresses(
    objects: Iterable[JsonObject], records: Iterable[ServiceRecord]
) -> tuple[JsonObject, ...]:
    """Return Services with their addresses.

    These are the virtual address that the mesh has chosen and, for a LoadBalancer, the endpoints
    that are reached from outside. A status that came with a manifest describes another cluster and
    is dropped.
    """
    known = {(record.namespace, record.name): record for record in records if record.name}
    return tuple(_with_addresses(found, known) for found in objects)


def _with_addresses(found: JsonObject, known: dict[tuple[str, str], ServiceRecord]) -> JsonObject:
    record = known.get((namespace_of(found), name_of(found)))
    shown = {key: value for key, value in found.items() if key != "status"}
    if record is None:
        return shown
    spec: JsonObject = mapping_at(found, "spec")
    if record.addresses and not record.headless and "clusterIP" not in spec:
        addresses = record.addresses
        spec = {**spec, "clusterIP": addresses[0], "clusterIPs": [*addresses]}
    shown["spec"] = spec
    if spec.get("type") == "LoadBalancer" and (ingress := _ingress(record)):
        shown["status"] = {"loadBalancer": {"ingress": ingress}}
    return shown


def _ingress(record: ServiceRecord) -> list[Json]:
    """Return the ready endpoints of a service: no load balancer stands in front of them."""
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
    """Return an object without the address that the mesh has chosen and ``get`` has shown.

    ``stored``: the objects as users asked for them before. ``records``: the services with the
    addresses that are shown.
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
